import { describe, expect, it } from 'vitest';
import { SignatureCheck, slackSignature } from '../../src/chat/signature.ts';
import { sign, signingSecret } from '../helpers/chat.ts';

// The example of https://docs.slack.dev/authentication/verifying-requests-from-slack, byte for byte.
const published = {
  secret: '8f742231b10e8888abcd99yyyzzz85a5',
  timestamp: '1531420618',
  body: 'token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c',
  signature: 'v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503',
};
const body = Buffer.from(published.body);
const { timestamp, signature } = published;
const at = Number(timestamp) * 1_000;
const check = () => new SignatureCheck(published.secret);

describe('the published example', () => {
  it('is signed as Slack says', () => {
    expect(slackSignature(published.secret, timestamp, body)).toBe(signature);
    expect(sign(published.body, Number(timestamp))['x-slack-signature']).toBe(signature);
  });

  it('is taken in its own time, once', () => {
    const signatures = check();
    expect(signatures.take({ timestamp, signature, body }, at)).toBeUndefined();
    expect(signatures.take({ timestamp, signature, body }, at)).toBe('seen before');
    expect(signatures.take({ timestamp, signature, body }, at + 300_999)).toBe('seen before');
  });

  it.each([
    ['a character of the body changed', { body: Buffer.from(published.body.replace('foobar', 'foobaz')) }, 'wrong signature'],
    ['a byte more', { body: Buffer.from(`${published.body} `) }, 'wrong signature'],
    ['the time moved by a second', { timestamp: '1531420619' }, 'wrong signature'],
    ['a leading zero before the time', { timestamp: `0${timestamp}` }, 'wrong signature'],
    ['one digit of the signature', { signature: signature.replace(/3$/, '4') }, 'wrong signature'],
    ['capital letters', { signature: signature.toUpperCase() }, 'no signature'],
    ['another version', { signature: signature.replace('v0', 'v1') }, 'no signature'],
    ['half a signature', { signature: signature.slice(0, 40) }, 'no signature'],
    ['two signatures', { signature: `${signature}, ${signature}` }, 'no signature'],
    ['no signature', { signature: undefined }, 'no signature'],
    ['no time', { timestamp: undefined }, 'no timestamp'],
    ['a time in words', { timestamp: 'now' }, 'no timestamp'],
    ['a time with a sign', { timestamp: '+1531420618' }, 'no timestamp'],
  ])('is refused with %s', (_what, change, refusal) => {
    expect(check().take({ timestamp, signature, body, ...change }, at)).toBe(refusal);
  });

  it('is taken within five minutes on either side, not a second more', () => {
    const when = (seconds: number) => check().take({ timestamp, signature, body }, at + seconds * 1_000);
    expect([when(-301), when(-300), when(300), when(301)]).toEqual(['from the future', undefined, undefined, 'stale']);
  });

  it('is refused under another secret', () => {
    expect(new SignatureCheck('another').take({ timestamp, signature, body }, at)).toBe('wrong signature');
  });
});

it('one that was refused may still come from Slack itself; what is stale is forgotten', () => {
  const signatures = new SignatureCheck(signingSecret);
  const made = (second: number) => ({
    timestamp: String(second),
    signature: sign('a', second)['x-slack-signature'],
    body: Buffer.from('a'),
  });
  expect(signatures.take({ ...made(1_000), body: Buffer.from('b') }, 1_000_000)).toBe('wrong signature');
  expect(signatures.take(made(1_000), 1_000_000)).toBeUndefined();
  // As far in the future as it may be: it has to be remembered until its own window is over.
  expect(signatures.take(made(2_000), 1_700_000)).toBeUndefined();
  expect(signatures.take(made(2_000), 2_300_000)).toBe('seen before');
  expect(signatures.take(made(2_000), 2_301_000)).toBe('stale');
});
