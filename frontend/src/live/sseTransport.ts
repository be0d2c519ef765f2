import { readMessages, type SseMessage } from "./sseParser";
import { asEvent, asSubscribed, type Connect, type TransportListener, textOf } from "./transport";

/** What a lost network looks like on a WebSocket; both transports end in one vocabulary. */
const ABNORMAL_CLOSURE = 1006;
const UNAUTHENTICATED = 3500;
const FORBIDDEN = 3503;

/**
 * Live events for networks that refuse WebSocket.
 *
 * Read with fetch instead of EventSource, which hides three things that are needed here: the status
 * of a refusal, the heartbeats, and the moment to reconnect.
 */
export function sseTransport(
  url: (topics: readonly string[], since: string | null, ticket: string | null) => string,
  fetchStream: typeof fetch = (input, init) => fetch(input, init),
): Connect {
  return ({ topics, since, ticket }, listener) => {
    const abort = new AbortController();
    const read = async () => {
      const response = await fetchStream(url(topics, since, ticket), {
        headers: { Accept: "text/event-stream" },
        cache: "no-store",
        signal: abort.signal,
      });
      if (!response.ok || !response.body) {
        listener.onClosed({
          code: codeFor(response.status),
          reason: `HTTP ${response.status}`,
          opened: false,
        });
        return;
      }
      await readMessages(
        response.body,
        (message) => deliver(message, listener),
        (id) => listener.onHeartbeat(id || null),
        (delayMs) => listener.onRetry(delayMs),
      );
      if (!abort.signal.aborted)
        listener.onClosed({ code: ABNORMAL_CLOSURE, reason: "the stream ended", opened: true });
    };
    read().catch(() => {
      if (abort.signal.aborted) return;
      listener.onClosed({ code: ABNORMAL_CLOSURE, reason: "the network failed", opened: false });
    });
    return { close: () => abort.abort() };
  };
}

function deliver(message: SseMessage, listener: TransportListener): void {
  const payload = parseData(message.data);
  if (message.event === "hello") listener.onSubscribed(asSubscribed(payload));
  else if (message.event === "reset")
    listener.onReset(textOf(payload, "position"), textOf(payload, "reason"));
  else if (message.event === "message") {
    const event = asEvent(payload);
    if (event) listener.onEvent(event);
  }
  // `bye` needs no answer: its `retry:` was heard, the stream ends right after it, and an ended stream reconnects.
}

function parseData(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    return undefined;
  }
}

function codeFor(status: number): number {
  if (status === 401) return UNAUTHENTICATED;
  if (status === 403) return FORBIDDEN;
  return ABNORMAL_CLOSURE;
}
