import {
  diag,
  DiagLogLevel,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
  TraceFlags,
  type Attributes,
  type Context,
  type Span,
  type SpanOptions,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BatchSpanProcessor, TracerProvider, type IdGenerator } from '@opentelemetry/sdk-trace';
import { createHash, randomBytes } from 'node:crypto';
import { events } from '../contract/telemetry.ts';
import type { Scrub } from './scrub.ts';

// An incident is one trace, and its ids are made from the id of its first run: the same after a restart, a
// continue-as-new or a reset, from any worker, and whoever started it. So nothing has to travel in headers,
// which anybody may write, and no code of the workflow waits in another order because somebody traces it.

const hex = (bytes: number, ...parts: readonly string[]): string =>
  createHash('sha256')
    .update(['cordon', ...parts].join('\n'))
    .digest('hex')
    .slice(0, bytes * 2);

/** The id of an incident's trace. */
export function traceIdOf(firstRun: string): string {
  return hex(16, 'trace', firstRun);
}

const rootId = (firstRun: string): string => hex(8, 'incident', firstRun);
const phaseId = (firstRun: string, phase: string, round: number): string => hex(8, 'phase', firstRun, phase, String(round));

/** One attempt of an activity under way. */
export interface ActivitySpan {
  end(attributes: Attributes): void;
  fail(error: unknown): void;
}

/** What a span of an activity is named and sorted by. */
export interface ActivityOfIncident {
  readonly info: {
    readonly activityType: string;
    readonly activityId: string;
    readonly attempt: number;
    readonly workflowExecution?: { readonly workflowId: string; readonly runId: string };
  };
  readonly incident: string | undefined;
  readonly firstRun: string | undefined;
  readonly phase: string | undefined;
  readonly round: number | undefined;
  readonly step: string | undefined;
}

const exportEveryMs = 2_000;
const silent = (): void => undefined;

/** Random ids, except where a span's ids are known before it begins. */
class Ids implements IdGenerator {
  next: { readonly trace?: string; readonly span?: string } = {};
  generateTraceId(): string {
    return this.next.trace ?? randomBytes(16).toString('hex');
  }
  generateSpanId(): string {
    return this.next.span ?? randomBytes(8).toString('hex');
  }
}

/** Spans of incidents, sent by OTLP over HTTP. */
export class Tracing {
  readonly #ids = new Ids();
  readonly #provider: TracerProvider;
  readonly #scrub: Scrub;

  constructor(url: string, service: string, scrub: Scrub, notTaken: (why: string) => void) {
    this.#scrub = scrub;
    diag.setLogger({ error: notTaken, warn: notTaken, info: silent, debug: silent, verbose: silent }, DiagLogLevel.WARN);
    const exporter = new OTLPTraceExporter({ url: `${url}/v1/traces`, timeoutMillis: 3_000 });
    this.#provider = new TracerProvider({
      resource: resourceFromAttributes({ 'service.name': service }),
      idGenerator: this.#ids,
      spanLimits: { attributeValueLengthLimit: 1_000 },
      spanProcessors: [new BatchSpanProcessor({ exporter, scheduledDelayMillis: exportEveryMs, exportTimeoutMillis: 3_000 })],
    });
  }

  startActivity({ info, incident, firstRun, phase, round, step }: ActivityOfIncident): ActivitySpan {
    const parent = firstRun === undefined ? ROOT_CONTEXT : within(firstRun, phase, round);
    const span = this.#start(info.activityType, parent, {
      kind: SpanKind.INTERNAL,
      attributes: {
        ...about({ incident: incident ?? info.workflowExecution?.workflowId, run: info.workflowExecution?.runId, phase, round }),
        ...(step === undefined ? {} : { 'cordon.step': step }),
        'cordon.activity_id': info.activityId,
        'cordon.attempt': info.attempt,
      },
    });
    return {
      end: (attributes) => {
        span.setAttributes(Object.fromEntries(Object.entries(attributes).map(([key, value]) => [`cordon.${key}`, value])));
        span.end();
      },
      fail: (error) => {
        const { message, name } = error instanceof Error ? error : { message: String(error), name: 'Error' };
        const said = this.#scrub(message);
        const type = error instanceof Error && 'type' in error && typeof error.type === 'string' ? error.type : name;
        span.setStatus({ code: SpanStatusCode.ERROR, message: said });
        span.addEvent('exception', { 'exception.type': type, 'exception.message': said });
        span.end();
      },
    };
  }

  /** Phases, gates and the incident as a whole, from the line that says they ended. */
  ended(fields: Readonly<Record<string, unknown>>): void {
    const { event, since, firstRun } = fields;
    if (typeof event !== 'string' || typeof since !== 'string' || typeof firstRun !== 'string') return;
    const { incident, run, phase, round, mode, gate, opening, how, outcome } = fields;
    const attributes = about({ incident, run, phase, round, mode, gate, opening, how, outcome });
    const options = { startTime: new Date(since), attributes };
    if (event === events.phaseEnded && typeof phase === 'string' && typeof round === 'number') {
      this.#whole(`phase ${phase}`, within(firstRun), options, { span: phaseId(firstRun, phase, round) }, fields);
    } else if (event === events.gateEnded) {
      const inPhase = typeof phase === 'string' && typeof round === 'number' ? within(firstRun, phase, round) : within(firstRun);
      this.#whole(`gate ${String(gate)}`, inPhase, options, {}, fields);
    } else if (event === events.incidentClosed) {
      this.#whole('incident', ROOT_CONTEXT, options, { trace: traceIdOf(firstRun), span: rootId(firstRun) }, fields);
    }
  }

  #whole(name: string, parent: Context, options: SpanOptions, ids: Ids['next'], { time }: Readonly<Record<string, unknown>>): void {
    const span = this.#start(name, parent, options, ids);
    span.end(typeof time === 'string' ? new Date(time) : undefined);
  }

  #start(name: string, parent: Context, options: SpanOptions, ids: Ids['next'] = {}): Span {
    // The SDK asks for the ids before this returns.
    this.#ids.next = ids;
    try {
      return this.#provider.getTracer('cordon').startSpan(name, options, parent);
    } finally {
      this.#ids.next = {};
    }
  }

  /** Sends what is left, within the exporter's time; what a collector does not take is lost, and nothing waits for it. */
  async stop(): Promise<void> {
    await this.#provider.shutdown();
  }
}

/** Inside the incident's trace: under its root, or under one of its phases. */
function within(firstRun: string, phase?: string, round?: number): Context {
  const spanId = phase === undefined || round === undefined ? rootId(firstRun) : phaseId(firstRun, phase, round);
  return trace.setSpanContext(ROOT_CONTEXT, { traceId: traceIdOf(firstRun), spanId, traceFlags: TraceFlags.SAMPLED, isRemote: true });
}

/** Attributes of what is known; each span names the incident. */
function about(of: Readonly<Record<string, unknown>>): Attributes {
  const known = Object.entries(of).filter(([, value]) => typeof value === 'string' || typeof value === 'number');
  return Object.fromEntries(known.map(([key, value]) => [`cordon.${key}`, typeof value === 'number' ? value : String(value)]));
}
