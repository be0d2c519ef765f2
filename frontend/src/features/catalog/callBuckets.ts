import type { Invocation } from "../../api/types";

export interface Bucket {
  startMs: number;
  ok: number;
  failed: number;
}

export interface CallHistory {
  buckets: Bucket[];
  stepMs: number;
  /** Calls by outcome, `ok` or the code of a failure, most frequent first. */
  outcomes: [outcome: string, calls: number][];
}

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const STEPS_MS = [MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS, DAY_MS];
const BUCKETS_MAX = 40;
/** A few calls of just now are not the whole picture: fewer bars would say so. */
const BUCKETS_MIN = 24;

/** Calls over time, from the oldest given to now, in steps that people count in. */
export function historyOf(calls: Pick<Invocation, "at" | "ok" | "code">[], nowMs: number): CallHistory {
  const times = calls.map((call) => Date.parse(call.at));
  const firstMs = Math.min(nowMs, ...times);
  const stepMs = STEPS_MS.find((step) => (nowMs - firstMs) / step < BUCKETS_MAX - 1) ?? DAY_MS;
  const lastMs = Math.floor(Math.max(nowMs, ...times) / stepMs) * stepMs;
  const startMs = Math.min(Math.floor(firstMs / stepMs) * stepMs, lastMs - (BUCKETS_MIN - 1) * stepMs);
  const size = (lastMs - startMs) / stepMs + 1;
  const buckets = Array.from({ length: size }, (_, at) => ({
    startMs: startMs + at * stepMs,
    ok: 0,
    failed: 0,
  }));
  const outcomes = new Map<string, number>();
  calls.forEach((call, at) => {
    const bucket = buckets[Math.floor(((times[at] ?? 0) - startMs) / stepMs)];
    if (bucket) bucket[call.ok ? "ok" : "failed"] += 1;
    const outcome = call.ok ? "ok" : call.code || "failed";
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  });
  return { buckets, stepMs, outcomes: [...outcomes].sort((a, b) => b[1] - a[1]) };
}

export function stepName(stepMs: number): string {
  if (stepMs < HOUR_MS) return stepMs === MINUTE_MS ? "minute" : `${stepMs / MINUTE_MS} minutes`;
  if (stepMs < DAY_MS) return stepMs === HOUR_MS ? "hour" : `${stepMs / HOUR_MS} hours`;
  return "day";
}
