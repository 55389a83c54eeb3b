/** What cordon measures and says of itself, beside what the SDK does. docs/reference/metrics.md has the same names. */

/** Counters, without the `_total` that the endpoint adds: how often, since this worker started. */
export const counters = {
  messagesRefused: { name: 'cordon_messages_refused', labels: ['because'], help: 'Messages that were refused on record' },
  stepsEnded: { name: 'cordon_steps_ended', labels: ['phase', 'outcome'], help: 'Steps that ended, by how they ended' },
  incidentsClosed: { name: 'cordon_incidents_closed', labels: ['outcome', 'mode'], help: 'Incidents that closed' },
} as const;

/** Gauges over all open incidents of the task queue, the same from every worker. */
export const gauges = {
  incidents: { name: 'cordon_incidents', labels: ['phase', 'mode'], help: 'Open incidents' },
  gatesWaiting: { name: 'cordon_gates_waiting', labels: ['gate', 'mode'], help: 'Gates that wait for people' },
  gateOldestWait: {
    name: 'cordon_gate_oldest_wait_seconds',
    labels: ['gate', 'mode'],
    help: 'How long the gate that waits longest has waited; 0 when none waits',
  },
  stepsPending: { name: 'cordon_steps_pending', labels: ['kind', 'mode'], help: 'Steps that wait: parked ones are stuck' },
  stepsNotVerified: {
    name: 'cordon_steps_not_verified',
    labels: ['outcome', 'mode'],
    help: 'Steps of open incidents that ended without being verified: residual risk',
  },
  overviewTime: {
    name: 'cordon_overview_timestamp_seconds',
    labels: [],
    help: 'When the gauges were last brought up to date, Unix time',
  },
  evidenceFree: { name: 'cordon_evidence_free_bytes', labels: [], help: 'Space left where the evidence is' },
} as const;

/** `event` of the lines an incident logs about itself. */
export const events = {
  phaseEnded: 'phase_ended',
  gateOpened: 'gate_opened',
  gateEnded: 'gate_ended',
  voteCounted: 'vote_counted',
  messageRefused: 'message_refused',
  stepEnded: 'step_ended',
  stepWaits: 'step_waits',
  stepResumed: 'step_resumed',
  warning: 'warning',
  incidentClosed: 'incident_closed',
} as const;

/** Where an activity's failure keeps the error it was made from: for the log only, it never goes into history. */
export const hiddenCause = Symbol.for('cordon.cause');
