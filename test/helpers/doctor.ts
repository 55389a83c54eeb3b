import { expect } from 'vitest';
import { z } from 'zod';
import { cordon } from './cli.ts';

export const Report = z.object({
  exitCode: z.number(),
  next: z.string(),
  findings: z.array(z.object({ check: z.string(), state: z.string(), found: z.string(), mend: z.string().optional() })),
});
export type Report = z.infer<typeof Report>;
export type Finding = Report['findings'][number];

/** Runs `doctor`; whatever is not well says how to mend it. */
export async function doctorSays(env: Record<string, string>): Promise<{ report: Report; shown: string; ms: number }> {
  const { json, out, err, ms } = await cordon(['doctor', '--json'], env);
  const report = Report.parse(json());
  for (const { state, mend } of report.findings) if (state !== 'ok') expect(mend).toEqual(expect.stringMatching(/\w/));
  return { report, shown: out + err, ms };
}

/** The one finding about something. */
export function findingAbout({ findings }: Report, check: string): Finding {
  const [found, ...others] = findings.filter((one) => one.check === check);
  if (!found || others.length > 0) throw new Error(`expected one finding about ${check}: ${JSON.stringify(findings)}`);
  return found;
}
