import { useLive } from "../hooks/useLive";
import type { LiveState } from "../live/eventStream";
import { seqOf } from "../live/position";
import { count } from "./format";

const MEANINGS: Record<LiveState, string> = {
  connecting: "Opening the live connection",
  live: "Every change appears as it is committed",
  stale: "The live connection is lost and being restored; what is shown may be old",
  closed: "The server ended the live connection; nothing is updated until it is opened again",
};

export function ConnectionState() {
  const { state, transport, position, reason, reconnect } = useLive();
  const seq = seqOf(position);
  const channel = transport === "websocket" ? "WebSocket" : "SSE";
  return (
    <div className="connection">
      {seq !== null && (
        <span className="connection-seq" title={position ?? undefined}>
          seq {count(seq)}
        </span>
      )}
      <span
        role="status"
        className={`connection-pill connection-${state}`}
        title={`${MEANINGS[state]} (${channel})${reason ? `: ${reason}` : ""}`}
      >
        <span className="connection-dot" aria-hidden="true" />
        {state}
        {state === "live" && transport === "sse" && <span className="muted"> over SSE</span>}
      </span>
      {state === "closed" && (
        <button type="button" className="button" onClick={reconnect}>
          Reconnect
        </button>
      )}
    </div>
  );
}
