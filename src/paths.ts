import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';

/** The checkout: the folder with package.json, whether this runs from source or from dist/. */
export function checkoutDir(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, 'package.json'))) dir = dirname(dir);
  return dir;
}

/** The workflow code as the build bundles it. */
export function bundlePath(): string {
  return join(checkoutDir(), 'dist', 'workflow-bundle.js');
}

/** The converter that both sides of the worker load. */
export function payloadConverterPath(): string {
  return fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './payload-converter.ts' : './payload-converter.js', import.meta.url));
}

/** Which cordon this is, as package.json says. */
export function cordonVersion(): string {
  const text: unknown = JSON.parse(readFileSync(join(checkoutDir(), 'package.json'), 'utf8'));
  return z.object({ version: z.string() }).parse(text).version;
}
