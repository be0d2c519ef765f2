import { useQuery } from "@tanstack/react-query";
import { useCallback, useState } from "react";
import type { Change } from "../api/types";
import { useServices } from "./useServices";

/** The newest changes, newest first. Paused, the list stands still and `heldBack` counts what came since. */
export function useEvents() {
  const { queries } = useServices();
  const query = useQuery(queries.changes());
  const [pausedAt, setPausedAt] = useState<Change[] | null>(null);
  const { data } = query;
  const toggle = useCallback(() => setPausedAt((held) => (held ? null : (data ?? []))), [data]);
  const newestHeld = pausedAt?.[0]?.seq ?? 0;
  const heldBack = pausedAt ? (data ?? []).filter((change) => change.seq > newestHeld).length : 0;
  return { query, events: pausedAt ?? data, isPaused: pausedAt !== null, heldBack, toggle };
}
