// Sends signals from a process of its own, as a hostile client would: `node flooder.mjs ADDRESS WORKFLOW_ID COUNT LANES`,
// and the messages as JSON on stdin: a list of {"name", "payloads": [{"metadata": {"encoding": base64}, "data": base64}]}.
// Prints {"sent", "refused"} at the end; a failure that is no refusal by the server's limit ends it.
import { Connection } from '@temporalio/client';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';

const [address, workflowId, count, lanes] = process.argv.slice(2);
const messages = JSON.parse(readFileSync(0, 'utf8')).map(({ name, payloads }) => ({ name, payloads: payloads.map(decoded) }));
const connection = await Connection.connect({ address });
let next = 0;
let sent = 0;
let refused = 0;
await Promise.all(Array.from({ length: Number(lanes) }, lane));
await connection.close();
console.log(JSON.stringify({ sent, refused }));

async function lane() {
  for (let index = next++; index < Number(count); index = next++) {
    const { name, payloads } = messages[index % messages.length];
    const workflowExecution = { workflowId };
    const request = {
      namespace: 'default',
      workflowExecution,
      signalName: name,
      input: { payloads },
      requestId: randomUUID(),
      identity: 'flooder',
    };
    try {
      await connection.workflowService.signalWorkflowExecution(request);
      sent += 1;
    } catch (error) {
      if (!/exceeded workflow execution limit for signal events/.test(String(error))) throw error;
      refused += 1;
    }
  }
}

function decoded({ metadata, data }) {
  const bytes = (text) => Uint8Array.from(Buffer.from(text, 'base64'));
  return {
    ...(metadata && { metadata: Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, bytes(value)])) }),
    ...(data !== undefined && { data: bytes(data) }),
  };
}
