import { backoffMs } from "./backoff";
import { reconnects } from "./closeCodes";
import { GapProof } from "./gapProof";
import type { Connect, Connection, LiveEvent, Subscribed, TransportListener } from "./transport";

/**
 * connecting: the first attempt is under way. live: subscribed, and the server gives signs of life.
 * stale: what is shown may be old, a reconnect is under way or waits. closed: nobody is trying.
 */
export type LiveState = "connecting" | "live" | "stale" | "closed";

export interface LiveSnapshot {
  readonly state: LiveState;
  /** The transport of the current or latest attempt. */
  readonly transport: "websocket" | "sse";
  /** The newest position heard of, null before the first. */
  readonly position: string | null;
  /** Why the stream is not live; empty when it is. */
  readonly reason: string;
}

export interface EventStreamOptions {
  topics: readonly string[];
  websocket: Connect;
  sse: Connect;
  /** Resolves to null where the server asks for no key; rejects when it refuses the one we have. */
  ticket: () => Promise<string | null>;
  onEvent: (event: LiveEvent) => void;
  /** Everything that was read before may be out of date. */
  onReset: (reason: string) => void;
  onHeartbeat: () => void;
  /** A connection was made, whatever it will bring: states of before hold only if they come again. */
  onSubscribed: () => void;
  random?: () => number;
}

/** Two heartbeats of 20 s missed, and a little. */
const SILENCE_MS_MAX = 45_000;
const HANDSHAKE_MS_MAX = 10_000;
/** A connection that dies younger than this counts as another failed attempt. */
const UPTIME_MS_MIN = 5_000;
/** A server that asks for longer is not believed. */
const RETRY_MS_MAX = 60_000;
/** Proxies that refuse WebSocket refuse every time; two refusals are enough to stop asking. */
const WEBSOCKET_FAILURES_MAX = 2;

/**
 * The one live connection of the app.
 *
 * A cursor (the id of the last event applied) outlives connections and is the same on both
 * transports, so a reconnect resumes wherever it lands. What cannot be proved complete is reported
 * through `onReset`, never passed over.
 */
export class EventStream {
  private snapshotNow: LiveSnapshot = {
    state: "connecting",
    transport: "websocket",
    position: null,
    reason: "",
  };
  private readonly watchers = new Set<() => void>();
  private readonly proof = new GapProof();
  private cursor: string | null = null;
  private connection: Connection | null = null;
  private attempt = 0;
  private websocketFailures = 0;
  /** The wait that the server asked for before the next attempt. */
  private retryMs: number | null = null;
  /** Raised whenever an attempt begins or ends; what arrives for an older one is ignored. */
  private generation = 0;
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private silenceTimer: ReturnType<typeof setTimeout> | undefined;
  private uptimeTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly options: EventStreamOptions) {}

  get snapshot(): LiveSnapshot {
    return this.snapshotNow;
  }

  /** Calls back after each change of `snapshot`; returns the way to stop. */
  watch(onChange: () => void): () => void {
    this.watchers.add(onChange);
    return () => this.watchers.delete(onChange);
  }

  start(): void {
    this.attempt = 0;
    this.websocketFailures = 0;
    this.connect();
  }

  stop(reason = "stopped"): void {
    this.abandon();
    this.update({ state: "closed", reason });
  }

  /** Cuts a waiting retry short: the network is back, or somebody looks at the page again. */
  retryNow(): void {
    if (this.retryTimer !== undefined) this.connect();
  }

  private connect(): void {
    this.abandon();
    const generation = this.generation;
    const transport = this.websocketFailures < WEBSOCKET_FAILURES_MAX ? "websocket" : "sse";
    this.update({
      transport,
      ...(this.snapshotNow.state === "closed" ? { state: "connecting", reason: "" } : {}),
    });
    this.expectLifeWithin(HANDSHAKE_MS_MAX);
    this.options.ticket().then(
      (ticket) => {
        if (generation !== this.generation) return;
        const request = { topics: this.options.topics, since: this.cursor, ticket };
        this.connection = this.options[transport](request, this.listener(generation));
      },
      (error: unknown) => {
        if (generation !== this.generation) return;
        this.lost(1006, error instanceof Error ? error.message : "no ticket");
      },
    );
  }

  private listener(generation: number): TransportListener {
    const current = () => generation === this.generation;
    return {
      onSubscribed: (answer) => current() && this.subscribed(answer),
      onEvent: (event) => current() && this.received(event),
      onReset: (position, reason) =>
        current() && this.reset(position, reason || "the server could not replay"),
      onHeartbeat: (position) => current() && this.alive(position),
      onRetry: (delayMs) => {
        if (current() && delayMs >= 0) this.retryMs = Math.min(delayMs, RETRY_MS_MAX);
      },
      onClosed: ({ code, reason, opened }) => {
        if (!current()) return;
        if (!opened && this.snapshotNow.transport === "websocket") this.websocketFailures += 1;
        this.lost(code, reason);
      },
    };
  }

  private subscribed({ position, recovered }: Subscribed): void {
    this.options.onSubscribed();
    const isResumed = recovered && this.cursor !== null;
    // A resumed stream keeps its proof: the replay may still be on its way, and `position` lies after it.
    if (!isResumed)
      this.reset(position, this.cursor === null ? "connected" : "the gap could not be replayed");
    if (this.snapshotNow.transport === "sse") this.websocketFailures = WEBSOCKET_FAILURES_MAX - 1;
    else this.websocketFailures = 0;
    this.uptimeTimer = setTimeout(() => {
      this.attempt = 0;
    }, UPTIME_MS_MIN);
    this.expectLifeWithin(SILENCE_MS_MAX);
    this.update({ state: "live", reason: "", position: position || this.snapshotNow.position });
  }

  private received(event: LiveEvent): void {
    this.expectLifeWithin(SILENCE_MS_MAX);
    if (event.id === "") {
      this.options.onEvent(event);
      return;
    }
    const verdict = this.proof.check(event.id, event.prev);
    if (verdict === "duplicate") return;
    if (verdict === "epoch") this.reset(event.id, "the log began a new epoch");
    else if (verdict === "gap") this.reset(event.id, `an event before ${event.id} was missed`);
    this.cursor = event.id;
    this.update({ position: event.id });
    this.options.onEvent(event);
  }

  private reset(position: string, reason: string): void {
    if (position) {
      this.cursor = position;
      this.proof.reanchor(position);
      this.update({ position });
    }
    this.options.onReset(reason);
  }

  private alive(position: string | null): void {
    this.expectLifeWithin(SILENCE_MS_MAX);
    if (position) {
      // Other topics move the log on; without this an idle cursor would grow too old to resume from.
      this.cursor = position;
      this.update({ position });
    }
    this.options.onHeartbeat();
  }

  private expectLifeWithin(silenceMs: number): void {
    clearTimeout(this.silenceTimer);
    this.silenceTimer = setTimeout(() => {
      if (this.snapshotNow.state !== "live" && this.snapshotNow.transport === "websocket")
        this.websocketFailures += 1;
      this.lost(1006, `no sign of life for ${silenceMs / 1000} s`);
    }, silenceMs);
  }

  private lost(code: number, reason: string): void {
    this.abandon();
    if (!reconnects(code)) {
      this.update({ state: "closed", reason: reason || `closed with ${code}` });
      return;
    }
    this.update({ state: "stale", reason: reason || "the connection was lost" });
    this.retryTimer = setTimeout(() => this.connect(), this.nextDelayMs());
  }

  /** What the server asked for spreads its clients better than each can alone; it never cuts a backoff short. */
  private nextDelayMs(): number {
    const asked = this.retryMs;
    const ownMs = backoffMs(this.attempt, this.options.random);
    const isFirst = this.attempt === 0;
    this.retryMs = null;
    this.attempt += 1;
    if (asked === null) return ownMs;
    return isFirst ? asked : Math.max(asked, ownMs);
  }

  private abandon(): void {
    this.generation += 1;
    clearTimeout(this.retryTimer);
    clearTimeout(this.silenceTimer);
    clearTimeout(this.uptimeTimer);
    this.retryTimer = undefined;
    const connection = this.connection;
    this.connection = null;
    connection?.close();
  }

  private update(change: Partial<LiveSnapshot>): void {
    const next = { ...this.snapshotNow, ...change };
    const isSame = Object.entries(change).every(
      ([name, value]) => Reflect.get(this.snapshotNow, name) === value,
    );
    if (isSame) return;
    this.snapshotNow = next;
    for (const watcher of [...this.watchers]) watcher();
  }
}
