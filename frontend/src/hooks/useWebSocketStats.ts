import { useCallback, useSyncExternalStore } from "react";
import type { ServerStatus } from "../api/types";
import type { FleetSnapshot } from "../live/fleetStats";
import { useLive } from "./useLive";
import { useServices } from "./useServices";

export interface WebSocketStats extends FleetSnapshot {
  /** Of the replica that serves this page; null until they have come. */
  stats: ServerStatus | null;
  /** False while what is shown may be old. */
  connected: boolean;
}

/** Live statistics over the one connection of the app; over SSE where WebSocket is refused. */
export function useWebSocketStats(): WebSocketStats {
  const { fleet } = useServices();
  const watch = useCallback((onChange: () => void) => fleet.watch(onChange), [fleet]);
  const snapshot = useSyncExternalStore(watch, () => fleet.snapshot);
  const { state } = useLive();
  const own = snapshot.replicas.find(({ isOwn }) => isOwn);
  return { ...snapshot, stats: own?.stats ?? null, connected: state === "live" };
}
