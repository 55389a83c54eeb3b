import { Client, Connection } from '@temporalio/client';
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { seal, type Deps } from '../../activities/deps.ts';
import { investigateActivities } from '../../activities/investigate.ts';
import { reregisterActivities } from '../../activities/reregister.ts';
import { rotateActivities } from '../../activities/rotate.ts';
import { watched } from '../../activities/watched.ts';
import type { IncidentRef, PeerRef, VerifiedKeys } from '../../src/contract/steps.ts';
import { assertFact, federate, introduce, storedFacts, waitForFact } from '../../src/lab/federation.ts';
import { nodeTool, run } from '../../src/lab/python.ts';
import { field, text } from '../../src/lab/shapes.ts';
import { startStigmemNode, type StigmemNode } from '../../src/lab/stigmem-node.ts';
import { freePort, repoRoot, stigmemBin, stigmemPython } from '../../src/lab/tools.ts';
import { Stigmem } from '../../src/stigmem/client.ts';
import { fingerprintOf } from '../../src/stigmem/peer-reader.ts';
import { runActivity } from '../helpers/hostile-scene.ts';

// A peer rotates its key by the node's own command; then it comes back as another node, over HTTP alone.

vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 });

const dir = join(repoRoot, '.test', 'rotation');
let ours: StigmemNode;
let peerNode: StigmemNode;
let again: StigmemNode | undefined;
let node: Stigmem;
let deps: Deps;
let peer: PeerRef;
let oldSeed: string;
let oldKey: string;

const refOf = (incident = 'rotation'): IncidentRef => ({
  incident,
  firstRun: `first-${incident}`,
  mode: 'live',
  phase: 'rotate',
  round: 1,
  at: '2026-11-23T01:00:00.000Z',
  nodeId: ours.nodeId,
});
const verify = (ref = refOf()) => runActivity(rotateActivities(deps).verifyKeys, { ref, peer, firstBad: null });
const pending = (why: string) => ({
  type: 'RotationPending',
  category: 'BENIGN',
  nonRetryable: false,
  message: expect.stringContaining(why),
});

beforeAll(async () => {
  rmSync(dir, { recursive: true, force: true });
  const port = await freePort();
  // The node's own command rotates the manifest of the entity that is called like the node's URL, and no other.
  const entityUri = `http://127.0.0.1:${port}`;
  [ours, peerNode] = await Promise.all([
    startStigmemNode({ name: 'ours', dir: join(dir, 'ours') }),
    startStigmemNode({ name: 'peer', dir: join(dir, 'peer'), port, entityUri }),
  ]);
  const link = await federate(ours, peerNode);
  node = new Stigmem({ url: ours.url, adminKey: ours.adminKey });
  deps = {
    node,
    nodeUrl: ours.url,
    evidenceDir: join(dir, 'evidence'),
    policyFile: undefined,
    contactsFile: undefined,
    webhookUrl: undefined,
    peerAllow: ['loopback'],
    concurrency: 4,
    writesPerHour: 1_000_000,
    writeHeadroom: 0.1,
    hostTaskQueue: 'stigmem-host',
    temporal: new Client({ connection: Connection.lazy() }),
  };
  peer = {
    nodeId: peerNode.nodeId,
    url: peerNode.url,
    entityUri,
    peerIds: [link.peerIdOnA],
    nodeIds: [peerNode.nodeId],
    allowedScopes: ['company', 'public'],
  };
  const [row] = await peerNode.sql("SELECT value FROM node_meta WHERE key = 'federation_privkey'");
  oldSeed = text(row?.['value']);
  const known = await peerNode.request('GET', '/.well-known/stigmem');
  oldKey = text(field(known.body, 'federation_pubkey'));
});
afterAll(async () => {
  await Promise.allSettled([node?.close(), ours?.stop(), peerNode?.stop(), again?.stop()]);
});

describe('verifyKeys', () => {
  it('waits where nothing of the peer is on record, and as long as both of its documents show the old key', async () => {
    const { verifyKeys } = watched(rotateActivities(deps));
    const ask = () => runActivity(verifyKeys, { ref: refOf(), peer, firstBad: null });
    await expect(ask()).rejects.toMatchObject(pending('pinned key: expected a key of the peer from before'));
    await runActivity(investigateActivities(deps).readPeer, { ref: { ...refOf(), phase: 'investigate' }, peer });
    await expect(ask()).rejects.toMatchObject(pending('both of its documents show the old key'));
  });

  it("goes on waiting after the node's own command, which changes the manifest alone, until the node runs with the new key", async () => {
    const env = { ...peerNode.env, STIGMEM_NODE_PRIVATE_KEY: oldSeed };
    const { stdout } = await run(stigmemBin(), ['identity', 'rotate-key', '--kind', 'node'], { env, cwd: peerNode.dir });
    const seed = /STIGMEM_NODE_PRIVATE_KEY=(\S+)/.exec(stdout)?.[1] ?? '';
    await expect(verify()).rejects.toMatchObject({ type: 'RotationPending', message: expect.stringContaining('only its manifest') });

    const { body } = await peerNode.request('GET', '/.well-known/stigmem-manifest.json');
    const newKey = text(field(body, 'public_key'));
    await peerNode.stop();
    await expect(verify()).rejects.toMatchObject({ type: 'RotationPending', message: expect.stringContaining('ECONNREFUSED') });
    await peerNode.start({ STIGMEM_FEDERATION_PUBKEY: newKey, STIGMEM_FEDERATION_PRIVKEY: seed, STIGMEM_NODE_PRIVATE_KEY: seed });
    const { outcome, keys, detail } = await verify();
    expect({ outcome, keys }).toMatchObject({
      outcome: 'verified',
      keys: {
        nodeId: peer.nodeId,
        entityUri: peer.entityUri,
        publicKey: newKey,
        fingerprint: fingerprintOf(newKey),
        chain: 'afterFirstBad',
      },
    });
    expect(detail).toContain('whoever stole it could have done so');
    // An attempt that dies after it sealed the new key finds the same again.
    expect((await verify()).keys).toEqual(keys);
  });

  it("takes the pin from our node's own row, where the host worker sealed it, before the word of the peer", async () => {
    const ref = refOf('by the host');
    const rows = await ours.sql('SELECT * FROM peers');
    await seal(deps, { ...ref, phase: 'identify' }, 'peers rows on the host', 'peers', { rows, said: '', doubt: null });
    const word = 'known only from what the peer itself showed';
    expect((await verify(ref)).keys.remarks.join()).not.toContain(word);
    expect((await verify()).keys.remarks.join()).toContain(word);
  });

  it('keeps no more looks in the evidence than there were answers', async () => {
    const before = (await verify()).evidence.entries;
    for (let tries = 0; tries < 3; tries += 1) await verify();
    expect((await verify()).evidence.entries).toBe(before);
  });
});

describe('registerPeer', () => {
  let keys: VerifiedKeys;
  const register = (over: object = {}, ref = refOf()) =>
    runActivity(reregisterActivities(deps).registerPeer, {
      ref: { ...ref, phase: 'reregister' },
      peer,
      keys,
      approvedInRun: 'run-1',
      ...over,
    });
  const rowNow = async () => (await node.peers()).find(({ node_id }) => node_id === again?.nodeId);
  const ourFact = async (id: string) => (await storedFacts(ours)).some((fact) => fact.id === id);

  it('leaves a node_id that is known to the host: HTTP has no way', async () => {
    ({ keys } = await verify());
    const result = await register();
    expect(result).toMatchObject({ outcome: 'unverified', way: 'manual', peer });
    expect(result.manual?.how).toContain(`UPDATE peers SET federation_pubkey = '${keys.publicKey}'`);
  });

  it('asks for the registration that only the peer can sign, once it comes back as another node', async () => {
    await peerNode.stop();
    again = await startStigmemNode({ name: 'again', dir: join(dir, 'again'), port: peerNode.port });
    ({ keys } = await verify());
    expect(keys).toMatchObject({ nodeId: again.nodeId, entityUri: 'stigmem://again.test', chain: 'none' });
    const { outcome, manual } = await register();
    expect(outcome).toBe('unverified');
    expect(manual?.how).toContain('stigmem federation register-peer');
    expect(await rowNow()).toBeUndefined();
  });

  it('acts on no approval of another run, on no key but the approved one, and never leaves the row open', async () => {
    const apiKey = await ours.issueKey({ entityUri: 'stigmem://again.test/registering', permissions: ['federate'] });
    const args = ['--remote-url', ours.url, '--local-url', peer.url, '--scopes', 'company,public', '--api-key', apiKey];
    // It ends with 1 while the row is pending.
    await run(stigmemBin(), ['federation', 'register-peer', ...args], { env: again?.env ?? {}, cwd: again?.dir ?? '' }).catch(
      () => undefined,
    );
    expect(await rowNow()).toMatchObject({ status: 'pending_approval' });

    await expect(register({ approvedInRun: 'run-0' })).rejects.toMatchObject({ type: 'PreconditionChanged' });
    expect((await rowNow())?.ingest_tenant ?? '').toBe('');
    const other = { ...keys, fingerprint: fingerprintOf('another') };
    await expect(register({ keys: other })).rejects.toMatchObject({ type: 'PreconditionChanged' });
    expect(await rowNow()).toMatchObject({ status: 'pending_approval', ingest_tenant: expect.stringMatching(/^cordon-/) });
    const narrow = { ...peer, allowedScopes: ['public'] };
    expect(await register({ peer: narrow })).toMatchObject({
      way: 'manual',
      detail: expect.stringContaining('scopes it did not have: company'),
    });
  });

  it('fences the pending row, approves it by the fingerprint, reads both back, and does so once', async () => {
    const result = await register();
    expect(result).toMatchObject({ outcome: 'verified', peer: { nodeId: again?.nodeId, entityUri: 'stigmem://again.test' } });
    expect(await rowNow()).toMatchObject({
      status: 'active',
      ingest_tenant: expect.stringMatching(/^cordon-/),
      pull_tenant: 'cordon-none',
    });
    const approvals = async () =>
      (await node.federationAuditPage({ eventType: 'peer_approved', peerId: (await rowNow())?.peer_id ?? '' })).entries;
    expect(await approvals()).toHaveLength(1);
  });

  it('keeps its facts out until the fence is lifted, and then they arrive: the new key is taken', async () => {
    if (!again) throw new Error('no peer came back');
    await introduce(ours, again, ['company', 'public']);
    const id = await assertFact(again, { entity: 'stigmem://again.test/menu', relation: 'memory:lunch', value: 'soup' });
    await sleep(4_000);
    expect(await ourFact(id)).toBe(false);
    await node.patchPeer((await rowNow())?.peer_id ?? '', { ingest_tenant: '', pull_tenant: '', tenant_map: {} });
    expect(await waitForFact(ours, (fact) => fact.id === id)).toMatchObject({ receivedFrom: again.nodeId });
  });

  it('has the old key refused from then on, shown by trying it', async () => {
    const script =
      "import sys; from stigmem_node.federation.peer_token import create_peer_token; print(create_peer_token(sys.argv[1], ['company']))";
    const oldKeys = { STIGMEM_FEDERATION_PUBKEY: oldKey, STIGMEM_FEDERATION_PRIVKEY: oldSeed };
    const pull = async (as: StigmemNode | undefined, env: Readonly<Record<string, string>>) => {
      const { stdout } = await run(stigmemPython(), ['-B', '-c', script, ours.nodeId], { env: { ...as?.env, ...env }, cwd: as?.dir ?? '' });
      return ours.request('GET', '/v1/federation/facts?scope=company', undefined, stdout.trim());
    };
    expect((await pull(again, {})).status).toBe(200);
    expect((await pull(again, oldKeys)).status).toBe(401);
    // The old registration stands, as its residual risk says: answered, with nothing.
    expect(await pull(peerNode, oldKeys)).toMatchObject({ status: 200, body: { facts: [] } });
    const { entries } = await node.federationAuditPage({ eventType: 'rejected_token', limit: 50 });
    expect(JSON.stringify(entries.map(({ detail }) => detail))).toContain('invalid_signature');
  });

  it('registers by itself with the declaration that the operator of the peer sent, if it is of what was approved', async () => {
    if (!again) throw new Error('no peer came back');
    await ours.exec(`DELETE FROM peers WHERE node_id = '${again.nodeId}'`);
    const declare = (scopes: string[]) =>
      nodeTool('declare', { local_url: peer.url, scopes }, { env: again?.env ?? {}, cwd: again?.dir ?? '' });
    const ref = refOf('declared');
    await expect(register({ declaration: await declare(['company', 'team']) }, ref)).rejects.toMatchObject({ type: 'InvalidInput' });
    expect(await rowNow()).toBeUndefined();
    expect(await register({ declaration: await declare(['public']) }, ref)).toMatchObject({ outcome: 'verified' });
    expect(await rowNow()).toMatchObject({ status: 'active', allowed_scopes: ['public'], pull_tenant: 'cordon-none' });
  });
});
