import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { parse as parseYaml } from 'yaml';
import type { z } from 'zod';
import { People } from '../../src/chat/people.ts';
import { failureTypes } from '../../src/contract/failures.ts';
import * as messages from '../../src/contract/messages.ts';
import { gates, outcomes, phases, refusals, searchAttributes, steps } from '../../src/contract/names.ts';
import { PolicyFile, PolicyTightening } from '../../src/contract/policy.ts';
import { Amendment, Decision, signalSchemas, StartPayload, Status, Vote } from '../../src/contract/schemas.ts';
import { Contacts } from '../../src/notify/contacts.ts';
import { returningRules } from '../../src/policy/returning.ts';
import { blindWire, tripwires } from '../../src/policy/tripwires.ts';
import { kindRules } from '../../src/policy/rules-kind.ts';
import { rules } from '../../src/policy/rules.ts';

// The documents say what the code has, and the code has what they say.

const root = resolve(fileURLToPath(new URL('../..', import.meta.url)));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

/** The part of a document under one heading, up to the next of the same or a higher level. */
function section(document: string, heading: string): string {
  const level = /^#+/.exec(heading)?.[0].length ?? 0;
  const [, after = ''] = read(document).split(`\n${heading}\n`);
  const end = new RegExp(`^#{1,${level}} `, 'm').exec(after)?.index ?? after.length;
  expect(after.slice(0, end).trim(), `${document} has no ${heading}`).not.toBe('');
  return after.slice(0, end);
}

/** Rows of the tables in a text, without their heads; a cell may hold an escaped bar. */
function rows(text: string): string[][] {
  const lines = text.split('\n').filter((line) => line.startsWith('|'));
  const heads = new Set(lines.flatMap((line, at) => (/^\|[\s|:-]+$/.test(line) ? [at - 1, at] : [])));
  return lines
    .filter((_, at) => !heads.has(at))
    .map((line) =>
      line
        .split(/(?<!\\)\|/)
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

const named = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name);
const firstCells = (text: string): string[] => rows(text).flatMap(([first = '']) => named(first));
const codeBlocks = (document: string, language: string): string[] =>
  [...read(document).matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, 'g'))].map(([, text = '']) => text);

const contract = 'docs/reference/workflow.md';

describe('docs/reference/workflow.md', () => {
  const wireNames = (type: string): string[] =>
    Object.values(messages)
      .filter((message) => message.type === type)
      .map(({ name }) => name);
  test.each([
    ['## Phases', [...phases]],
    ['## Steps', [...steps]],
    ['## Gates', [...gates]],
    ['## Signals', wireNames('signal')],
    ['## Updates', wireNames('update')],
    ['## Refusals', [...refusals]],
    ['## Outcomes', [...outcomes]],
    ['## Search attributes', Object.values(searchAttributes)],
    ['### Status', Object.keys(Status.shape)],
  ])('%s lists exactly what the code has', (heading, inCode) => {
    expect(firstCells(section(contract, heading)).toSorted()).toEqual(inCode.toSorted());
  });

  test('## Queries lists exactly what the code has', () => {
    const [queries = ''] = section(contract, '## Queries').split('\n### ');
    expect(firstCells(queries).toSorted()).toEqual(wireNames('query').toSorted());
  });

  test('its example payloads are taken', () => {
    const examples = new Map(rows(section(contract, '## Signals')).map(([name = '', payload = '']) => [named(name)[0], named(payload)[0]]));
    for (const [name, schema] of Object.entries(signalSchemas)) {
      // The row of `reject` says: the same.
      const payload: unknown = JSON.parse(examples.get(name) ?? examples.get('approve') ?? 'null');
      expect(schema.safeParse(payload).error, name).toBeUndefined();
    }
    expect(StartPayload.safeParse(JSON.parse(codeBlocks(contract, 'json')[0] ?? 'null')).error).toBeUndefined();
  });
});

test('docs/reference/failures.md lists exactly the failure types, and which are retried', () => {
  const inDocument = rows(read('docs/reference/failures.md')).map(([type = '', retried]) => [named(type)[0], retried]);
  expect(inDocument).toEqual(Object.entries(failureTypes).map(([type, { retryable }]) => [type, retryable ? 'yes' : 'no']));
});

describe('docs/reference/runbook.md', () => {
  const table = rows(read('docs/reference/runbook.md')).map(([sentence = '', step = '', workflow = '', activity = '', how = '']) => ({
    sentence,
    step,
    workflow,
    activity,
    how,
  }));

  test('each sentence has a step that exists, and no step is without a sentence', () => {
    const known: readonly string[] = steps;
    expect(table.length).toBeGreaterThan(30);
    expect(table.filter(({ step }) => named(step).length === 0 || !named(step).every((name) => known.includes(name)))).toEqual([]);
    expect(known.filter((name) => !table.some(({ step }) => named(step).includes(name)))).toEqual([]);
  });

  test('each sentence names a function that its file has', () => {
    const wrong = table.flatMap(({ sentence, workflow, activity, how }) =>
      [workflow, activity].flatMap((cell) => {
        if (cell === 'not in this version') return how.startsWith('not done') ? [] : [`${sentence}: ${cell}`];
        const [name = '', file = ''] = named(cell);
        const has = existsSync(join(root, file)) && new RegExp(`\\b${name}\\b\\s*(?:<[^>]*>)?\\(`).test(read(file));
        return has ? [] : [`${sentence}: ${cell}`];
      }),
    );
    expect(wrong).toEqual([]);
  });

  test('each file and rule it names exists', () => {
    const paths = table.flatMap(({ how }) => named(how)).filter((name) => name.startsWith('src/'));
    expect(paths.filter((path) => !existsSync(join(root, path)))).toEqual([]);
    const ruleNames = table.flatMap(({ how }) =>
      [...how.matchAll(/\brules? `(\w+)`(?: and `(\w+)`)?/g)].flatMap(([, ...names]) => names.filter(Boolean)),
    );
    expect(ruleNames.length).toBeGreaterThan(3);
    expect(ruleNames.filter((name) => !read('src/policy/rules.ts').includes(`name: '${name}'`))).toEqual([]);
  });
});

describe('docs/reference/rules.md', () => {
  const listed = [...read('docs/reference/rules.md').matchAll(/^\| `(\w+)` \| (.*) \|$/gm)].map(
    ([, name, rest]) => `${name ?? ''} | ${rest ?? ''}`,
  );

  test('names each rule once, with its weight, whether it marks, and why, as the code has it', () => {
    const judged = rules.map(({ name, weight, marksTurn, why }) => `${name} | ${weight} | ${marksTurn ? 'yes' : 'no'} | ${why}`);
    const kinds = kindRules.map(({ name, why }) => `${name} | ${why}`);
    expect(listed.slice(0, judged.length)).toEqual(judged);
    const returning = returningRules.map(({ name, why }) => `${name} | ${why}`);
    expect(listed.slice(judged.length, -2)).toEqual([...kinds, ...returning]);
  });

  test('names the rules about what is not a fact of the peer', () => {
    const beside = [...read('src/policy/beside.ts').matchAll(/rule: '(\w+)'/g)].map(([, name]) => name);
    expect(listed.slice(-2).map((row) => row.split(' | ')[0])).toEqual(beside);
  });
});

describe('docs/reference/tripwires.md', () => {
  test('names each wire once, and why, as the code has it', () => {
    const listed = [...read('docs/reference/tripwires.md').matchAll(/^\| `(\w+)` \| (.*) \|$/gm)].map(
      ([, name, why]) => `${name ?? ''} | ${why ?? ''}`,
    );
    expect(listed.slice(0, -1)).toEqual(tripwires.map(({ name, why }) => `${name} | ${why}`));
    expect(listed.at(-1)).toContain(blindWire);
  });
});

describe('examples in the how-to documents', () => {
  test('policy and contacts are taken', () => {
    const [policy, tightening, contacts] = codeBlocks('docs/how-to/policy-and-contacts.md', 'yaml').map((text): unknown => parseYaml(text));
    expect(PolicyFile.safeParse(policy).error).toBeUndefined();
    expect(PolicyTightening.safeParse(tightening).error).toBeUndefined();
    expect(Contacts.safeParse(contacts).error).toBeUndefined();
  });

  test("the Slack app's manifest asks for what chat uses, and the people file is taken", () => {
    const [manifest, people] = codeBlocks('docs/how-to/chat.md', 'yaml').map((text): unknown => parseYaml(text));
    expect(manifest).toMatchObject({
      features: { slash_commands: [{ command: '/cordon', url: expect.stringMatching(/^https:.*\/slack\/events$/), should_escape: false }] },
      oauth_config: { scopes: { bot: ['chat:write', 'commands', 'channels:history', 'groups:history', 'metadata.message:read'] } },
      settings: { interactivity: { is_enabled: true, request_url: expect.stringMatching(/^https:.*\/slack\/events$/) } },
    });
    expect(People.safeParse(people).error).toBeUndefined();
  });

  test('payloads for the temporal command are taken', () => {
    const lines = codeBlocks('docs/how-to/incident.md', 'sh').join('\n').replaceAll('\\\n', ' ').split('\n');
    const inputs = lines.flatMap((line) => {
      const [, name = '', input] = /--name (\w+) .*--input '(.*)'/.exec(line) ?? [];
      return input === undefined ? [] : [{ name, input: JSON.parse(input) as unknown }];
    });
    const schemas: Readonly<Record<string, z.ZodType>> = { approve: Vote, decide: Decision, amend: Amendment };
    expect(inputs.map(({ name }) => name)).toEqual(['approve', 'decide', 'amend']);
    for (const { name, input } of inputs) expect(schemas[name]?.safeParse(input).error, name).toBeUndefined();
  });
});
