import { DefaultPayloadConverter, type Payload, type PayloadConverter } from '@temporalio/common';

const standard = new DefaultPayloadConverter();

/**
 * The default converter, except that it never throws on the way in. Bytes that don't decode become a text
 * that says so, which every schema refuses: a payload that threw here would wedge the workflow for good.
 * `worker.ts` names this file; the workflow bundle holds it.
 */
export const payloadConverter: PayloadConverter = {
  toPayload: (value) => standard.toPayload(value),
  fromPayload<T>(payload: Payload): T {
    try {
      return standard.fromPayload<T>(payload);
    } catch (error) {
      const bytes = payload.data?.length ?? 0;
      const why = error instanceof Error ? error.message.slice(0, 200) : 'unknown';
      const text: unknown = `undecodable payload of ${bytes} bytes: ${why}`;
      return text as T;
    }
  },
};
