import { defineQuery, defineSignal, defineUpdate } from '@temporalio/workflow';
import type { AmendAnswer, DecisionAnswer, PlanAnswer, Status } from './schemas.ts';

// Payloads are typed unknown on purpose: the Temporal UI and `temporal workflow signal` send
// anything, and each handler parses what came by its schema.
export const decideUpdate = defineUpdate<DecisionAnswer, [unknown]>('decide');
export const amendUpdate = defineUpdate<AmendAnswer, [unknown]>('amend');

export const approveSignal = defineSignal<[unknown]>('approve');
export const rejectSignal = defineSignal<[unknown]>('reject');
export const amendSignal = defineSignal<[unknown]>('amend');
export const alertSignal = defineSignal<[unknown]>('alert');
export const noteSignal = defineSignal<[unknown]>('note');
export const retrySignal = defineSignal<[unknown]>('retry');
export const doneSignal = defineSignal<[unknown]>('done');
export const skipSignal = defineSignal<[unknown]>('skip');
export const closeSignal = defineSignal<[unknown]>('close');
export const extendSignal = defineSignal<[unknown]>('extend');

export const statusQuery = defineQuery<Status>('status');
export const planQuery = defineQuery<PlanAnswer, [unknown?]>('plan');
