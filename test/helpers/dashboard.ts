import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import { repoRoot } from '../../src/lab/tools.ts';

const Source = z.strictObject({ type: z.literal('prometheus'), uid: z.literal('${datasource}') });
const Place = z.strictObject({ h: z.int().min(1), w: z.int().min(1).max(24), x: z.int().min(0).max(23), y: z.int().min(0) });
const Row = z.looseObject({ type: z.literal('row'), id: z.int(), title: z.string().min(1), gridPos: Place });
const Panel = z.looseObject({
  type: z.enum(['stat', 'timeseries']),
  id: z.int(),
  title: z.string().min(1),
  gridPos: Place,
  datasource: Source,
  targets: z.array(z.looseObject({ refId: z.string(), expr: z.string().min(1), datasource: Source })).min(1),
});

/** What Grafana needs to import a dashboard. */
export const Dashboard = z.looseObject({
  __inputs: z.array(z.looseObject({ name: z.string(), type: z.literal('datasource'), pluginId: z.literal('prometheus') })),
  uid: z.string().regex(/^[\w-]{1,40}$/),
  title: z.string().min(1),
  schemaVersion: z.int().min(36),
  templating: z.object({ list: z.array(z.looseObject({ name: z.string(), type: z.string() })) }),
  panels: z.array(z.discriminatedUnion('type', [Row, Panel])),
});

export const dashboardFile = join(repoRoot, 'deploy', 'grafana', 'cordon.json');

export function dashboardQueries(): string[] {
  const { panels } = Dashboard.parse(JSON.parse(readFileSync(dashboardFile, 'utf8')));
  return panels.flatMap((panel) => (panel.type === 'row' ? [] : panel.targets.map(({ expr }) => expr)));
}

const Alerts = z.object({ groups: z.array(z.object({ rules: z.array(z.looseObject({ alert: z.string(), expr: z.string() })) })) });

/** The alert rules that docs/how-to/observe.md offers. */
export function alertQueries(): string[] {
  const text = readFileSync(join(repoRoot, 'docs', 'how-to', 'observe.md'), 'utf8');
  const blocks = [...text.matchAll(/```yaml\n([^]*?)```/g)].map(([, block = '']): unknown => parseYaml(block));
  const rules = blocks.flatMap((block) => Alerts.safeParse(block).data?.groups ?? []).flatMap((group) => group.rules);
  return rules.map(({ expr }) => expr);
}
