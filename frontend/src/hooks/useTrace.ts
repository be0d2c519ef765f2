import { useEffect, useState } from "react";
import { segments } from "../api/client";
import { isRecord } from "../json";
import { useServices } from "./useServices";

/** More would only push the interesting ones out of sight. */
export const TRACED_MAX = 100;

export interface TraceStep {
  /** Counts up, for keys. */
  number: number;
  kind: string;
  at: string;
  facts: Record<string, unknown>;
}

export interface Trace {
  state: "connecting" | "following" | "ended";
  /** The replica that is being watched: each has a memory of its own. */
  replica: string;
  /** Newest first, at most `TRACED_MAX`. */
  steps: TraceStep[];
  error: Error | null;
}

const NOTHING: Trace = { state: "connecting", replica: "", steps: [], error: null };

/** What happens to one key of the cache, for as long as somebody looks; `attempt` begins anew when it changes. */
export function useTrace(key: string, attempt: number): Trace {
  const { api } = useServices();
  const [trace, setTrace] = useState<Trace>(NOTHING);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new attempt at the same key is a new stream
  useEffect(() => {
    const abort = new AbortController();
    let number = 0;
    setTrace(NOTHING);
    const onMessage = ({ event, data }: { event: string; data: string }) => {
      const told: unknown = JSON.parse(data);
      if (!isRecord(told)) return;
      if (event === "hello") {
        setTrace((now) => ({ ...now, state: "following", replica: String(told.replica ?? "") }));
        return;
      }
      number += 1;
      const step = {
        number,
        kind: String(told.kind ?? ""),
        at: String(told.at ?? ""),
        facts: isRecord(told.facts) ? told.facts : {},
      };
      setTrace((now) => ({ ...now, steps: [step, ...now.steps].slice(0, TRACED_MAX) }));
    };
    api.follow(`/cache/trace/${segments(key)}`, abort.signal, onMessage).then(
      () => setTrace((now) => ({ ...now, state: "ended" })),
      (error: Error) => {
        if (!abort.signal.aborted) setTrace((now) => ({ ...now, state: "ended", error }));
      },
    );
    return () => abort.abort();
  }, [api, key, attempt]);
  return trace;
}
