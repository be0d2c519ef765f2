import { isRecord } from "../json";

/** The part of a browser WebSocket that the client uses; tests bring their own. */
export interface SocketLike {
  readonly readyState: number;
  readonly bufferedAmount: number;
  onopen: (() => void) | null;
  onmessage: ((message: { data: unknown }) => void) | null;
  onclose: ((close: { code: number; reason: string }) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

export type OpenSocket = (url: string) => SocketLike;

/** `code` is a JSON-RPC number, or one of `disconnected`, `timeout`, `cancelled`, `overloaded`. */
export class RpcFailure extends Error {
  constructor(
    readonly code: number | "disconnected" | "timeout" | "cancelled" | "overloaded",
    message: string,
    readonly data: unknown = undefined,
  ) {
    super(message);
    this.name = "RpcFailure";
  }
}

export interface RpcListener {
  onOpen(): void;
  onNotification(method: string, params: unknown): void;
  /** Exactly once for each `open`. `opened` is false when the handshake never finished. */
  onClose(code: number, reason: string, opened: boolean): void;
}

interface PendingCall {
  settle(outcome: { result: unknown } | { failure: RpcFailure }): void;
}

interface CallOptions {
  timeoutMs?: number;
  signal?: AbortSignal;
}

const OPEN = 1;
const CALL_TIMEOUT_MS = 15_000;
const PENDING_MAX = 128;
/** Calls made during the handshake wait here. */
const OUTBOUND_MAX = 64;
/** Above this the server is not reading; one more frame would only sit in this process's memory. */
const BUFFERED_BYTES_MAX = 1024 * 1024;
const METHOD_NOT_FOUND = -32601;

/**
 * JSON-RPC 2.0 over one WebSocket at a time.
 *
 * It does not reconnect: its owner opens it again. A call that was under way when the socket closed
 * is refused with `disconnected`; whether it took effect is then unknown, so only the caller can
 * decide to repeat it.
 */
export class RpcClient {
  private socket: SocketLike | null = null;
  private opened = false;
  private nextId = 1;
  private readonly pending = new Map<number, PendingCall>();
  private outbound: string[] = [];

  constructor(private readonly openSocket: OpenSocket) {}

  get isOpen(): boolean {
    return this.opened;
  }

  open(url: string, listener: RpcListener): void {
    this.close();
    const socket = this.openSocket(url);
    this.socket = socket;
    socket.onopen = () => {
      if (this.socket !== socket) return;
      this.opened = true;
      listener.onOpen();
      for (const text of this.outbound.splice(0)) socket.send(text);
    };
    socket.onmessage = (message) => {
      if (this.socket === socket) this.receive(message.data, listener);
    };
    socket.onclose = (close) => {
      if (this.socket !== socket) return;
      const opened = this.opened;
      this.forget();
      listener.onClose(close.code, close.reason, opened);
    };
  }

  /** Ends the connection without telling the listener: the owner asked for it. */
  close(): void {
    const socket = this.socket;
    if (!socket) return;
    this.forget();
    socket.close(1000);
  }

  /** Rejects with `RpcFailure` only. Aborting tells the server to stop as well. */
  call(method: string, params: object, options: CallOptions = {}): Promise<unknown> {
    const { timeoutMs = CALL_TIMEOUT_MS, signal } = options;
    const refusal = this.refusal(signal);
    if (refusal) return Promise.reject(refusal);
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      const giveUp = (failure: RpcFailure) => {
        this.transmit({ method: "notifications/cancelled", params: { requestId: id } });
        this.pending.get(id)?.settle({ failure });
      };
      const timer = setTimeout(
        () => giveUp(new RpcFailure("timeout", `${method} gave no answer within ${timeoutMs} ms`)),
        timeoutMs,
      );
      const cancel = () => giveUp(new RpcFailure("cancelled", `${method} was cancelled`));
      signal?.addEventListener("abort", cancel, { once: true });
      this.pending.set(id, {
        settle: (outcome) => {
          clearTimeout(timer);
          signal?.removeEventListener("abort", cancel);
          this.pending.delete(id);
          if ("failure" in outcome) reject(outcome.failure);
          else resolve(outcome.result);
        },
      });
      this.transmit({ id, method, params });
    });
  }

  private refusal(signal: AbortSignal | undefined): RpcFailure | null {
    if (signal?.aborted) return new RpcFailure("cancelled", "cancelled before it was sent");
    if (!this.socket) return new RpcFailure("disconnected", "not connected");
    const isFull =
      this.pending.size >= PENDING_MAX ||
      this.outbound.length >= OUTBOUND_MAX ||
      this.socket.bufferedAmount > BUFFERED_BYTES_MAX;
    return isFull ? new RpcFailure("overloaded", "too many calls are under way") : null;
  }

  private transmit(message: object): void {
    const text = JSON.stringify({ jsonrpc: "2.0", ...message });
    if (this.opened && this.socket?.readyState === OPEN) this.socket.send(text);
    else if (this.socket && this.outbound.length < OUTBOUND_MAX) this.outbound.push(text);
  }

  private receive(data: unknown, listener: RpcListener): void {
    const parsed = parseFrame(data);
    for (const message of Array.isArray(parsed) ? parsed : [parsed]) {
      if (isRecord(message)) this.dispatch(message, listener);
    }
  }

  private dispatch(message: Record<string, unknown>, listener: RpcListener): void {
    const { id, method } = message;
    if (typeof method === "string" && id === undefined) {
      listener.onNotification(method, message.params);
    } else if (typeof method === "string") {
      // The server may ask the client something; this one has nothing to offer, and says so.
      this.transmit({ id, error: { code: METHOD_NOT_FOUND, message: `no method ${method} here` } });
    } else if (typeof id === "number") {
      this.pending
        .get(id)
        ?.settle(isRecord(message.error) ? failureOf(message.error) : { result: message.result });
    }
  }

  private forget(): void {
    this.socket = null;
    this.opened = false;
    this.outbound = [];
    for (const call of [...this.pending.values()]) {
      call.settle({
        failure: new RpcFailure("disconnected", "the connection closed before the answer came"),
      });
    }
  }
}

function failureOf(error: Record<string, unknown>): { failure: RpcFailure } {
  const code = typeof error.code === "number" ? error.code : -32603;
  const message = typeof error.message === "string" ? error.message : "the server gave no reason";
  return { failure: new RpcFailure(code, message, error.data) };
}

/** undefined for a frame that is not JSON: one bad frame must not end the connection. */
function parseFrame(data: unknown): unknown {
  if (typeof data !== "string") return undefined;
  try {
    return JSON.parse(data);
  } catch {
    return undefined;
  }
}
