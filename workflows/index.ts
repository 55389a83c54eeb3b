// Bundle entry: the workflow functions by name, nothing else.
export { PeerCompromise } from './peer-compromise.ts';
export { PeerClaim } from './peer-claim.ts';
export { SealHistory } from './seal-history.ts';
