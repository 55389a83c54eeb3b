import { renderReport } from '../src/audit/report.ts';
import type { Outcome } from '../src/contract/names.ts';
import type { Closure } from '../src/contract/closing.ts';
import type { Status } from '../src/contract/schemas.ts';
import type { EvidenceHead, HeldAlert, IncidentRef, PeerRef, Sealed } from '../src/contract/steps.ts';
import { verifyFolder } from '../src/evidence/verify.ts';
import { effectKey, evidenceOf, headOf, seal as sealEvidence, type Deps } from './deps.ts';
import { lossKind } from './evidence-loss.ts';
import { sealRunHistory } from './history.ts';

interface SealAsk {
  readonly ref: IncidentRef;
  readonly outcome: Outcome | null;
  readonly closing?: Closure & { readonly approvedInRun: string };
  readonly status: Status;
  readonly alerts: readonly HeldAlert[];
  readonly ours: { readonly nodeId: string; readonly url: string } | null;
  readonly peer: PeerRef | null;
}

/** Closed: the last evidence, and the report. */
export function closeActivities(deps: Deps) {
  /** Writes the report, seals the final status, and checks the whole folder as an auditor would. */
  async function seal({ ref, outcome, closing, status, alerts, ours, peer }: SealAsk): Promise<Sealed> {
    const drill = ref.mode === 'drill';
    const store = await evidenceOf(deps, ref);
    const text = renderReport({ status, alerts, outcome, ...(closing ? { closing } : {}), drill });
    const report = drill ? 'DRILL-report.md' : 'report.md';
    const meta = { key: effectKey(ref, 'report'), kind: 'report', phase: ref.phase, round: ref.round, at: ref.at };
    await store.writeFileBeside(report, text, { ...meta, mediaType: 'text/markdown; charset=utf-8' });
    const final = await sealEvidence(deps, ref, 'final status', 'status', {
      outcome,
      closing: closing ?? null,
      status,
      alerts,
      ours,
      peer,
    });
    // The head that history knows must be in the chain: else lines were cut off its end.
    const known = status.evidence.head === '' ? {} : { expectHead: status.evidence.head };
    const { ok, entries, objects, firstProblem } = await verifyFolder(store.dir, known);
    const path = `files/${report}`;
    const lost = (await store.entries()).filter(({ kind }) => kind === lossKind);
    const residual = lost.map(({ name }) => ({ what: 'evidence that was lost', why: name, count: 1 }));
    if (ok && lost.length > 0) {
      const detail = `${path} written; the evidence folder verifies, but entries that were sealed are gone: ${lost.map(({ name }) => name).join('; ')}`;
      return { outcome: 'unverified', way: 'none', detail: detail.slice(0, 2_000), residual, report: path, evidence: headOf(final) };
    }
    if (ok) {
      const detail = `${path} written; the evidence folder verifies: ${entries} entries, ${objects} objects, with the head that history knows`;
      return { outcome: 'verified', way: 'none', detail, report: path, evidence: headOf(final) };
    }
    const wrong = `${firstProblem?.where ?? store.dir}: ${firstProblem?.what ?? 'unknown'}`.slice(0, 500);
    return {
      outcome: 'unverified',
      way: 'none',
      detail: `${path} written; the evidence folder does NOT verify: ${wrong}`,
      residual: [{ what: 'evidence folder', why: `does not verify: ${wrong}`, count: 1 }, ...residual],
      report: path,
      evidence: headOf(final),
    };
  }

  /** Seals the history of a run that has ended, before retention deletes it. Fails, to be tried again, while it is open. */
  async function exportHistory({ incident, runId }: { readonly incident: string; readonly runId: string }): Promise<EvidenceHead> {
    return headOf(await sealRunHistory(deps, incident, runId));
  }

  return { seal, exportHistory };
}
