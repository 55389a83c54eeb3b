import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { agentOwners, ContactsError, loadContacts, operatorOf, parseContacts } from '../../src/notify/contacts.ts';

const yaml = `
ours: { name: Home operations, contact: ops@home.example }
peers:
  node:peer: { name: Peer desk, contact: desk@peer.example }
  https://other.example/: { name: Other, contact: "+49 1" }
  stigmem://third.example/node/self: { name: Third, contact: third@third.example }
downstream:
  https://down.example: { name: Down, contact: down@down.example }
agents:
  stigmem://home/: { name: Everybody, contact: all@home.example }
  stigmem://home/agent/pay/: { name: Payments, contact: pay@home.example }
`;
const contacts = parseContacts(yaml, 'test');
const nobody = { nodeIds: [], urls: [], entityUri: '' };

describe('the contacts file', () => {
  it('is YAML or JSON, from disk', async () => {
    const file = join(mkdtempSync(join(tmpdir(), 'contacts-')), 'contacts.json');
    writeFileSync(file, JSON.stringify(contacts));
    expect(await loadContacts(file)).toEqual(contacts);
    expect(await loadContacts(undefined)).toEqual({ peers: {}, downstream: {}, agents: {} });
  });

  it('finds operators by node_id, URL or entity URI', () => {
    expect(operatorOf(contacts, { ...nobody, nodeIds: ['node:peer'] })?.name).toBe('Peer desk');
    expect(operatorOf(contacts, { ...nobody, urls: ['https://other.example'] })?.name).toBe('Other');
    expect(operatorOf(contacts, { ...nobody, entityUri: 'stigmem://third.example/node/self' })?.name).toBe('Third');
    expect(operatorOf(contacts, { ...nobody, urls: ['https://down.example/'] })?.name).toBe('Down');
    expect(operatorOf(contacts, { ...nobody, urls: ['https://unknown.example'] })).toBeUndefined();
  });

  it('lets what our node knows outrank the entity URI that a peer claims', () => {
    const claimed = { nodeIds: ['node:peer'], urls: [], entityUri: 'stigmem://third.example/node/self' };
    expect(operatorOf(contacts, claimed)?.name).toBe('Peer desk');
  });

  it('gives every owner of agents, once', () => {
    expect(
      agentOwners(contacts)
        .map(({ name }) => name)
        .toSorted(),
    ).toEqual(['Everybody', 'Payments']);
  });

  it.each([
    ['peers: 7', /peers: expected record, got 7/],
    ['peers: { a: { name: x } }', /peers\.a\.contact: expected string, got undefined/],
    ['peer: {}', /Unrecognized key/],
    ['ours: { name: "a\\nb", contact: c }', /ours\.name: expected one line/],
    ['a: b: c', /error at line 1/],
    ['peers: {}\npeers: {}', /error at line 2/],
    ['- x', /whole payload.*expected object/],
  ])('%j is refused with the field, what was expected and what came', (text, message) => {
    expect(() => parseContacts(text, 'c.yaml')).toThrow(message);
    expect(() => parseContacts(text, 'c.yaml')).toThrow(ContactsError);
    expect(() => parseContacts(text, 'c.yaml')).toThrow(/"c\.yaml"/);
  });

  it('names a file that is not there', async () => {
    await expect(loadContacts('/nowhere/contacts.yaml')).rejects.toThrow(/expected a readable file, got ENOENT/);
  });
});
