import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseAlert, parseKeep, readDataFile } from '../../src/cli/input.ts';
import { cordon } from '../helpers/cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'cordon-cli-'));
const file = (name: string, text: string) => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};
const digest = `sha256:${'a'.repeat(64)}`;

describe('input', () => {
  it('reads an alert as name[@time][=detail]', () => {
    expect(parseAlert('peer_replay_burst')).toEqual({ name: 'peer_replay_burst' });
    expect(parseAlert('a@2026-11-23T01:00:00Z=by bob@x=1')).toEqual({
      name: 'a',
      at: '2026-11-23T01:00:00Z',
      detail: 'by bob@x=1',
    });
    expect(parseAlert('a=mail me@example.org')).toEqual({ name: 'a', detail: 'mail me@example.org' });
  });

  it('reads a kept fact as id=justification', () => {
    expect(parseKeep('f-1=our own price = right')).toEqual({ factId: 'f-1', justification: 'our own price = right' });
    expect(() => parseKeep('f-1')).toThrow('expected factId=justification');
    expect(() => parseKeep('=why')).toThrow('expected factId=justification');
  });

  it('reads YAML and JSON files and says what is wrong with others', () => {
    expect(readDataFile(file('a.yaml', 'window: 1h\n'), 'policy')).toEqual({ window: '1h' });
    expect(readDataFile(file('a.json', '{"window":"1h"}'), 'policy')).toEqual({ window: '1h' });
    expect(() => readDataFile(file('b.yaml', 'a: [1'), 'policy')).toThrow('expected YAML or JSON');
    expect(() => readDataFile(join(folder, 'none'), 'policy')).toThrow('ENOENT');
    expect(() => readDataFile(folder, 'policy')).toThrow('EISDIR');
  });

  // The address answers nobody: exit 2 instead of 4 shows that nothing was even tried.
  it.each([
    [['start', ' '], 'peer'],
    [['start', 'p', '--alert', 'a@yesterday'], 'alerts.0.at'],
    [['start', 'p', '--alert', '=x'], 'alerts.0.name'],
    [['start', 'p', '--watch', '1 day'], 'watch'],
    [['start', 'p', '--first-bad-at', 'noon'], 'firstBadAt'],
    [['start', 'p', '--policy', file('p.yaml', 'gates: {retract: {need: 0}}')], 'gates.retract.need'],
    [['start', 'p', '--policy', file('q.yaml', 'gate: {}')], 'gate'],
    [['approve', 'x', '--digest', digest, '--by', 'a'], '--gate'],
    [['approve', 'x', '--gate', 'retract', '--by', 'a'], '--digest'],
    [['approve', 'x', '--gate', 'retract', '--digest', digest], '--by'],
    [['approve', 'x', '--gate', 'retract', '--digest', 'sha256:abc', '--by', 'a'], 'digest'],
    [['reject', 'x', '--gate', 'retract', '--digest', digest.toUpperCase(), '--by', 'a'], 'digest'],
    [['approve', 'x', '--gate', 'reregister', '--digest', digest, '--by', 'a', '--fingerprint', 'ab:cd'], 'fingerprint'],
    [['plan', 'x', '--gate', 'nonsense'], '--gate'],
    [['amend', 'x', '--digest', digest, '--by', 'a'], 'keep'],
    [['amend', 'x', '--digest', digest, '--by', 'a', '--keep', 'f='], 'keep.0.justification'],
    [['amend', 'x', '--digest', digest, '--by', 'a', '--keep-file', file('k.yaml', 'a: 1')], '--keep-file'],
    [['note', 'x', ' ', '--by', 'a'], 'text'],
    [['note', 'x', 'words'], '--by'],
    [['retry', 'x', 'noSuchStep', '--by', 'a'], 'step'],
    [['done', 'x', 'revokeKeys', '--by', 'a'], '--note'],
    [['skip', 'x', 'revokeKeys', '--by', 'a'], '--note'],
    [['close', 'x', '--outcome', 'restored', '--reason', 'r', '--by', 'a'], 'outcome'],
    [['close', 'x', '--outcome', 'expelled', '--by', 'a'], '--reason'],
    [['verify', folder, '--head', 'nonsense'], '--head'],
  ])('refuses %j, naming %s, and sends nothing', async (args, field) => {
    const run = await cordon(args);
    expect(run.err).toContain(field);
    expect(run.code).toBe(2);
    expect(run.out).toBe('');
  });

  it('says what was expected and what came', async () => {
    const run = await cordon(['start', 'p', '--watch', '1 day']);
    expect(run.err).toMatch(/watch: expected a duration like 30s, 15m, 24h or 7d, got "1 day"/);
  });
});
