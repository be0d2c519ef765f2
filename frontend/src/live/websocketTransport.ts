import { type RpcClient, RpcFailure } from "./rpcClient";
import { asEvent, asSubscribed, type Connect, numberOf, type TransportListener, textOf } from "./transport";

/** A close code of our own, in the range that reconnects: the socket opened but would not subscribe. */
const SUBSCRIBE_FAILED = 4000;

/** Live events over the same socket that carries the commands. */
export function websocketTransport(rpc: RpcClient, url: (ticket: string | null) => string): Connect {
  return ({ topics, since, ticket }, listener) => {
    const subscribe = async () => {
      const answer = await rpc.call("subscribe", { topics, ...(since ? { since } : {}) });
      listener.onSubscribed(asSubscribed(answer));
    };
    rpc.open(url(ticket), {
      onOpen: () => {
        subscribe().catch((failure: unknown) => {
          // `disconnected` means the socket closed first, which `onClose` reports with the real code.
          if (failure instanceof RpcFailure && failure.code === "disconnected") return;
          rpc.close();
          const reason = failure instanceof Error ? failure.message : "the subscription failed";
          listener.onClosed({ code: SUBSCRIBE_FAILED, reason, opened: true });
        });
      },
      onNotification: (method, params) => notify(listener, method, params),
      onClose: (code, reason, opened) => listener.onClosed({ code, reason, opened }),
    });
    return { close: () => rpc.close() };
  };
}

function notify(listener: TransportListener, method: string, params: unknown): void {
  if (method === "event") {
    const event = asEvent(params);
    if (event) listener.onEvent(event);
  } else if (method === "reset") {
    listener.onReset(textOf(params, "position"), textOf(params, "reason"));
  } else if (method === "heartbeat") {
    listener.onHeartbeat(textOf(params, "position") || null);
  } else if (method === "bye") {
    listener.onRetry(numberOf(params, "retryMs"));
  }
}
