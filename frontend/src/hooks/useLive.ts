import { useCallback, useSyncExternalStore } from "react";
import type { LiveSnapshot } from "../live/eventStream";
import { useServices } from "./useServices";

export function useLive(): LiveSnapshot & { reconnect: () => void } {
  const { stream } = useServices();
  const watch = useCallback((onChange: () => void) => stream.watch(onChange), [stream]);
  const snapshot = useSyncExternalStore(watch, () => stream.snapshot);
  const reconnect = useCallback(() => stream.start(), [stream]);
  return { ...snapshot, reconnect };
}
