import proto from '@temporalio/proto';
import { Worker, type WorkflowBundle } from '@temporalio/worker';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { converterPath } from '../helpers/workflow-env.ts';
import type { RecordedHistory } from './record-histories.ts';

const folder = fileURLToPath(new URL('histories/', import.meta.url));
const listFile = fileURLToPath(new URL('histories.sha256', import.meta.url));

/** Every recorded history, by the name of its file. */
export function historyFiles(): string[] {
  return readdirSync(folder).toSorted();
}

export function historyText(name: string): string {
  return readFileSync(join(folder, name), 'utf8');
}

export function readRecorded(name: string): RecordedHistory {
  const history: RecordedHistory = JSON.parse(historyText(name));
  return history;
}

/** Replays under the real workflow id, from which ids and keys are made. */
export async function replay(bundle: WorkflowBundle, name: string): Promise<void> {
  const { workflowId, events } = readRecorded(name);
  // Not historyFromJSON of the SDK: it throws when npm installs protobufjs more than once.
  const history = proto.temporal.api.history.v1.History.fromObject({ events });
  await Worker.runReplayHistory({ workflowBundle: bundle, dataConverter: { payloadConverterPath: converterPath } }, history, workflowId);
}

/** sha256 of each history by the name of its file, as it was when it was recorded. */
export function listedDigests(): Map<string, string> {
  if (!existsSync(listFile)) return new Map();
  const lines = readFileSync(listFile, 'utf8')
    .split('\n')
    .filter((line) => line !== '');
  return new Map(lines.map((line): [string, string] => [line.slice(66), line.slice(0, 64)]));
}

export function digestOf(name: string): string {
  return createHash('sha256').update(historyText(name)).digest('hex');
}

/** Is there one of this name already, of any release? */
export function isRecorded(release: string, scenario: string): boolean {
  return existsSync(join(folder, `${release}-${scenario}.json`));
}

/** Adds one; what is there stays as it is, file and line. */
export function keep(release: string, scenario: string, history: RecordedHistory): void {
  const name = `${release}-${scenario}.json`;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, name), `${JSON.stringify(history)}\n`, { flag: 'wx' });
  list([name]);
}

/** In the form that `sha256sum -c` reads. */
export function list(names: readonly string[]): void {
  const listed = listedDigests();
  const lines = names.filter((name) => !listed.has(name)).map((name) => `${digestOf(name)}  ${name}\n`);
  writeFileSync(listFile, lines.join(''), { flag: 'a' });
}
