/**
 * Every `ApplicationFailure.type` cordon throws. docs/reference/failures.md matches this list both ways.
 * Denied, expired and held are outcomes in the result, not failures.
 */
export const failureTypes = {
  /** Network, timeout, 408, 425, 429, 5xx: retried, then parked. */
  StigmemUnavailable: { retryable: true },
  /** Another 4xx: the node said no. */
  StigmemRejected: { retryable: false },
  /** 401 or 403: the admin key is wrong or lacks a right. */
  StigmemUnauthorized: { retryable: false },
  /** A documented route this node doesn't have. */
  StigmemUnsupported: { retryable: false },
  /** An answer that does not match the wire schema. */
  StigmemContract: { retryable: false },
  /** The URL answers as another node than the one the incident is bound to. */
  StigmemIdentity: { retryable: false },
  /** The world moved since approval: plan again, ask again. */
  PreconditionChanged: { retryable: false },
  /** The start payload (or what an activity was given) fails its schema. */
  InvalidInput: { retryable: false },
  /** A complete, valid peer list has no such peer. */
  PeerNotFound: { retryable: false },
  /** Two peers match; people have to say which. */
  PeerAmbiguous: { retryable: false },
  /** The evidence folder can't be written or read: full, read-only or damaged. */
  EvidenceUnavailable: { retryable: true },
  /** A file cordon was configured with (policy, contacts) can't be read or parsed. */
  ConfigInvalid: { retryable: false },
  /** The webhook for notices and reminders does not answer or does not take them. */
  WebhookUnavailable: { retryable: true },
  /** The node's database, or a program on its host, does not do its part now: busy, out of reach, failed. */
  HostUnavailable: { retryable: true },
  /** The host worker can't serve this incident: a schema it does not know, another node, another evidence folder. */
  HostUnsupported: { retryable: false },
  /** It would do harm on a node that is set up like this one. */
  HostRefused: { retryable: false },
  /** The peer does not show a new key that is good yet: asked again until it does. */
  RotationPending: { retryable: true },
  /** The peer is looked at again after a while: nothing was touched, and the watch is not over. */
  WatchGoesOn: { retryable: true },
  /** A run whose history is to be sealed has not ended yet. */
  RunStillOpen: { retryable: true },
} as const satisfies Record<string, { retryable: boolean }>;
export type FailureType = keyof typeof failureTypes;

/** Type guard for `ApplicationFailure.type`. */
export function isFailureType(type: string | null | undefined): type is FailureType {
  return typeof type === 'string' && Object.hasOwn(failureTypes, type);
}
