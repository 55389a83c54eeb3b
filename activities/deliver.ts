import type { IncidentRef } from '../src/contract/steps.ts';
import { join } from 'node:path';
import { sha256Hex } from '../src/evidence/canonical.ts';
import { digestFile } from '../src/evidence/objects.ts';
import type { EvidenceStore } from '../src/evidence/store.ts';
import type { Contact } from '../src/notify/contacts.ts';
import { firstOf } from '../src/notify/markdown.ts';
import type { Notice } from '../src/notify/notices.ts';
import { postWebhook, WebhookError, type Receipt } from '../src/notify/webhook.ts';
import { cancelSignal, effectKey, evidenceOf, seal, type Deps } from './deps.ts';
import { StepFailure } from './failures.ts';

/** A notice to be written, and whom it is for. */
export interface Draft {
  /** What makes its key, and its file's name. */
  readonly item: string;
  readonly notice: Notice;
  /** Nobody: the contacts file has no such contact. */
  readonly to: readonly Contact[];
  /** Whom to look up when nobody is known. */
  readonly lookUp: string;
}

/** How far one notice got. `open`: a person has to do something, `how` says what. */
export interface Sent {
  readonly file: string;
  readonly state: { readonly kind: 'posted' | 'unchanged' | 'drill' | 'open'; readonly said: string };
  readonly how: string;
}

const postsAtOnce = 8;

/**
 * Writes every notice first, so that an outage of the webhook loses none, then posts what was not posted yet.
 * With `readBack` it only looks whether the files are as they were sealed.
 */
export async function deliver(deps: Deps, ref: IncidentRef, drafts: readonly Draft[], readBack: boolean): Promise<Sent[]> {
  const store = await evidenceOf(deps, ref);
  if (readBack) return Promise.all(drafts.map((draft) => lookAt(store, ref, draft)));
  const posted = await postedSoFar(store, ref, drafts);
  for (const draft of drafts) {
    if (posted.has(draft.item)) continue;
    const { item, notice } = draft;
    const meta = {
      key: effectKey(ref, item),
      kind: 'notice',
      phase: ref.phase,
      round: ref.round,
      at: ref.at,
      mediaType: 'text/markdown; charset=utf-8',
    };
    await store.writeFileBeside(fileName(ref, item), notice.markdown, meta);
  }
  if (deps.webhookUrl !== undefined && ref.mode === 'live') {
    const waiting = drafts.filter(({ item }) => !posted.has(item));
    for (let at = 0; at < waiting.length; at += postsAtOnce) {
      const batch = await Promise.allSettled(waiting.slice(at, at + postsAtOnce).map((draft) => postNotice(deps, ref, draft)));
      // What got through is sealed and is not posted again when this is tried anew.
      for (const result of batch) if (result.status === 'rejected') throw result.reason;
    }
    for (const { item } of waiting) posted.add(item);
  }
  return drafts.map((draft) => sentOf(ref, draft, posted.has(draft.item)));
}

async function postNotice(deps: Deps, ref: IncidentRef, { item, notice, to, lookUp }: Draft): Promise<void> {
  const file = `files/${fileName(ref, item)}`;
  const receipt = await post(deps, effectKey(ref, item), {
    kind: 'notice',
    incident: ref.incident,
    mode: ref.mode,
    notice: item,
    file,
    to,
    ...(to.length === 0 ? { lookUp } : {}),
    subject: notice.subject,
    text: notice.markdown,
  });
  await seal(deps, ref, receiptItem(item), 'receipt', { file, notice: `sha256:${sha256Hex(notice.markdown)}`, to, receipt });
}

/** Posts to the webhook; its failures are retried, then shown. */
export async function post(deps: Deps, effect: string, body: object): Promise<Receipt> {
  if (deps.webhookUrl === undefined) throw new StepFailure('ConfigInvalid', 'no webhook is set');
  try {
    return await postWebhook(deps.webhookUrl, effect, body, { signal: cancelSignal() });
  } catch (error) {
    if (error instanceof WebhookError) throw new StepFailure('WebhookUnavailable', error.message);
    throw error;
  }
}

async function postedSoFar(store: EvidenceStore, ref: IncidentRef, drafts: readonly Draft[]): Promise<Set<string>> {
  const keys = new Set((await store.entries()).map(({ key }) => key));
  return new Set(drafts.map(({ item }) => item).filter((item) => keys.has(effectKey(ref, receiptItem(item)))));
}

function sentOf(ref: IncidentRef, { item, to, lookUp }: Draft, posted: boolean): Sent {
  const file = `files/${fileName(ref, item)}`;
  if (ref.mode === 'drill') return { file, state: { kind: 'drill', said: 'DRILL: written, nothing was posted and nobody told' }, how: '' };
  const names = firstOf(to, 20, ({ name, contact }) => `${name} <${contact}>`).join(', ');
  if (to.length > 0 && posted) {
    return {
      file,
      state: { kind: 'posted', said: `written, sealed, and taken by the webhook for ${names}; whether they read it is not known` },
      how: '',
    };
  }
  if (to.length > 0)
    return { file, state: { kind: 'open', said: 'written and sealed; no webhook is set' }, how: `Send ${file} to ${names}.` };
  const said = `written and sealed${posted ? ' and posted to the webhook' : ''}; no contact is known`;
  return { file, state: { kind: 'open', said }, how: `Look up ${lookUp}, and send ${file} to them.` };
}

/** That it was sent is the person's word: what can be read back is that the notice is the one that was sealed. */
async function lookAt(store: EvidenceStore, ref: IncidentRef, { item }: Draft): Promise<Sent> {
  const name = fileName(ref, item);
  const file = `files/${name}`;
  const entry = (await store.entries()).findLast((other) => other.file === name);
  const found = await digestFile(join(store.dir, 'files', name));
  if (entry && found?.sha256 === entry.sha256) {
    return {
      file,
      state: { kind: 'unchanged', said: "the file is as it was sealed; that it was sent rests on the person's word alone" },
      how: '',
    };
  }
  const said = entry ? 'the file is missing or not as it was sealed' : 'this notice was never written';
  return { file, state: { kind: 'open', said }, how: `Write it again with: cordon retry ${ref.incident} <step> --by <you>.` };
}

/** The incident's run and round are in the name: a later incident of the same peer writes beside, not over it. */
function fileName(ref: IncidentRef, item: string): string {
  return `${ref.mode === 'drill' ? 'DRILL-' : ''}${item}-${ref.firstRun.slice(0, 8)}-r${ref.round}.md`;
}

function receiptItem(item: string): string {
  return `${item}:receipt`;
}
