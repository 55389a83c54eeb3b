# The image of `cordon`: the worker, the chat bridge and every other command.
# How to build and run it: docs/how-to/deploy.md. Temporal's native code needs glibc, so no Alpine.

FROM node:22.23.3-bookworm-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# Temporal's native code comes for five platforms, 25 MB each: the image's own stays.
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund \
 && find node_modules/@temporalio/core-bridge/releases -mindepth 1 -maxdepth 1 ! -name "$(uname -m)-unknown-linux-gnu" -exec rm -r {} + \
 && find node_modules -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' \) -delete

FROM node:22.23.3-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY activities activities
COPY src src
COPY workflows workflows
RUN node node_modules/typescript/bin/tsc -p tsconfig.build.json \
 && node dist/src/build-bundle.js \
 && find dist -type f \( -name '*.map' -o -name '.tsbuildinfo' \) -delete

FROM node:22.23.3-bookworm-slim
ENV NODE_ENV=production
ENV CORDON_EVIDENCE_DIR=/var/lib/cordon/evidence
WORKDIR /app
# A new volume on the evidence folder takes over its owner. npm has no business in what runs.
RUN mkdir -p /var/lib/cordon/evidence \
 && chown -R 1000:1000 /var/lib/cordon \
 && ln -s /app/bin/cordon.js /usr/local/bin/cordon \
 && rm -rf /usr/local/lib/node_modules /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack /opt/yarn-*
COPY LICENSE package.json ./
COPY bin bin
COPY --from=dependencies /app/node_modules node_modules
COPY --from=build /app/dist dist
USER 1000:1000
VOLUME /var/lib/cordon/evidence
ENTRYPOINT ["cordon"]
CMD ["worker"]
# The worker's own health endpoint; for another command set another port, or switch it off.
ENV CORDON_HEALTH_LISTEN=127.0.0.1:9465
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["node", "/app/bin/healthy.js", "9465"]
