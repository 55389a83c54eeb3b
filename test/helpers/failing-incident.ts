/** Fails every workflow task, as code does that does not fit the history. */
export async function PeerCompromise(): Promise<void> {
  return Promise.reject(new Error('this code does not fit'));
}
