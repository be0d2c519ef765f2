import { isRecord } from "../json";

/** What is seen of the fleet: every replica, only this one (no Redis), or this one and what a lost Redis had brought. */
export type Coverage = "fleet" | "local" | "degraded";

const COVERAGES: readonly unknown[] = ["fleet", "local", "degraded"] satisfies Coverage[];

/** What an event of a state topic says beside its value. */
export interface StateMark {
  key: string;
  /** True when it comes from the replica that serves this connection. */
  isOwn: boolean;
  coverage: Coverage;
}

/**
 * One committed change, `prev` being the id before it on its stream; or the latest value of a state
 * topic, which has an empty `id`: a state is replaced, not resumed.
 */
export interface LiveEvent {
  id: string;
  prev: string;
  topic: string;
  kind: string;
  at: string;
  data: Record<string, unknown>;
  /** Of a state topic only. */
  state?: StateMark;
}

export interface Subscribed {
  position: string;
  /** True when everything after `since` was, or is about to be, replayed. */
  recovered: boolean;
}

export interface TransportListener {
  onSubscribed(answer: Subscribed): void;
  onEvent(event: LiveEvent): void;
  /** The server cannot replay from here: what was read before must be read again. */
  onReset(position: string, reason: string): void;
  /** A sign of life. Sent between events: whatever was to come up to `position` has come. */
  onHeartbeat(position: string | null): void;
  /** How long the server asks to wait before the next attempt, so that not everybody comes back at once. */
  onRetry(delayMs: number): void;
  /** Once, unless `close` was called. `opened` is false when the handshake never finished. */
  onClosed(close: { code: number; reason: string; opened: boolean }): void;
}

export interface ConnectRequest {
  topics: readonly string[];
  since: string | null;
  /** A short-lived proof of the key, null where the server asks for none. */
  ticket: string | null;
}

export interface Connection {
  close(): void;
}

export type Connect = (request: ConnectRequest, listener: TransportListener) => Connection;

/** null for anything that is not an event; an unknown kind is still an event. */
export function asEvent(value: unknown): LiveEvent | null {
  if (!isRecord(value)) return null;
  const { id, prev, topic, kind, at, data, key, own, coverage } = value;
  if (typeof topic !== "string" || typeof kind !== "string") return null;
  return {
    id: typeof id === "string" ? id : "",
    prev: typeof prev === "string" ? prev : "",
    topic,
    kind,
    at: typeof at === "string" ? at : "",
    data: isRecord(data) ? data : {},
    ...(typeof key === "string"
      ? { state: { key, isOwn: own !== false, coverage: asCoverage(coverage) } }
      : {}),
  };
}

function asCoverage(value: unknown): Coverage {
  return COVERAGES.includes(value) ? (value as Coverage) : "local";
}

export function asSubscribed(value: unknown): Subscribed {
  const answer = isRecord(value) ? value : {};
  return {
    position: typeof answer.position === "string" ? answer.position : "",
    recovered: answer.recovered === true,
  };
}

export function numberOf(value: unknown, member: string): number {
  const found = isRecord(value) ? value[member] : undefined;
  return typeof found === "number" ? found : Number.NaN;
}

export function textOf(value: unknown, member: string): string {
  const found = isRecord(value) ? value[member] : undefined;
  return typeof found === "string" ? found : "";
}
