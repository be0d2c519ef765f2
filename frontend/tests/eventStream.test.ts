import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { backoffMs } from "../src/live/backoff";
import { EventStream } from "../src/live/eventStream";
import type { LiveEvent } from "../src/live/transport";
import { eventId, fakeTransport, published } from "./fakes";

let websocket: ReturnType<typeof fakeTransport>;
let sse: ReturnType<typeof fakeTransport>;
let applied: string[];
let resets: string[];
let heartbeats: number;
let subscriptions: number;
let ticket: () => Promise<string | null>;
let stream: EventStream;

async function settle(ms = 0): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

async function goLive(seq = 10): Promise<void> {
  stream.start();
  await settle();
  websocket.last().onSubscribed({ position: eventId(seq), recovered: false });
}

beforeEach(() => {
  vi.useFakeTimers();
  websocket = fakeTransport();
  sse = fakeTransport();
  applied = [];
  resets = [];
  heartbeats = 0;
  subscriptions = 0;
  ticket = () => Promise.resolve(null);
  stream = new EventStream({
    topics: ["skills", "tools"],
    websocket: websocket.connect,
    sse: sse.connect,
    ticket: () => ticket(),
    onEvent: (event: LiveEvent) => applied.push(event.id || event.topic),
    onReset: (reason) => resets.push(reason),
    onSubscribed: () => {
      subscriptions += 1;
    },
    onHeartbeat: () => {
      heartbeats += 1;
    },
    random: () => 0.5,
  });
});

afterEach(() => {
  stream.stop();
  vi.useRealTimers();
});

test("it is connecting until it has subscribed, then live", async () => {
  stream.start();
  await settle();
  expect(stream.snapshot.state).toBe("connecting");
  expect(websocket.last().request).toEqual({ topics: ["skills", "tools"], since: null, ticket: null });
  websocket.last().onSubscribed({ position: eventId(10), recovered: false });
  expect(stream.snapshot).toMatchObject({ state: "live", position: eventId(10), transport: "websocket" });
  expect(resets).toEqual(["connected"]);
  expect(subscriptions).toBe(1);
});

test("events apply once and move the cursor that a reconnect resumes from", async () => {
  await goLive();
  websocket.last().onEvent(published(11));
  websocket.last().onEvent(published(11));
  websocket.last().onClosed({ code: 3008, reason: "slow", opened: true });
  expect(stream.snapshot).toMatchObject({ state: "stale", reason: "slow" });
  await settle(5_000);
  expect(websocket.last().request.since).toBe(eventId(11));
  websocket.last().onSubscribed({ position: eventId(13), recovered: true });
  websocket.last().onEvent(published(12));
  websocket.last().onEvent(published(13));
  expect(applied).toEqual([eventId(11), eventId(12), eventId(13)]);
  expect(resets).toEqual(["connected"]);
});

test("a resume that the server could not honour refetches and goes on from its position", async () => {
  await goLive();
  websocket.last().onClosed({ code: 1006, reason: "", opened: true });
  await settle(5_000);
  websocket.last().onSubscribed({ position: eventId(90), recovered: false });
  expect(resets).toHaveLength(2);
  websocket.last().onEvent(published(91));
  expect(applied).toEqual([eventId(91)]);
});

test("a missing predecessor refetches instead of passing for complete", async () => {
  await goLive();
  websocket.last().onEvent(published(13, eventId(12)));
  expect(resets.at(-1)).toContain("was missed");
  expect(applied).toEqual([eventId(13)]);
  websocket.last().onEvent(published(14));
  expect(resets).toHaveLength(2);
});

test("a reset from the server refetches and moves the cursor", async () => {
  await goLive();
  websocket.last().onReset(eventId(500, "e2"), "epoch");
  expect(resets.at(-1)).toBe("epoch");
  websocket.last().onClosed({ code: 1006, reason: "", opened: true });
  await settle(5_000);
  expect(websocket.last().request.since).toBe(eventId(500, "e2"));
});

test("a heartbeat keeps an idle cursor young and hides no event that follows it", async () => {
  await goLive();
  websocket.last().onHeartbeat(eventId(40));
  expect(stream.snapshot.position).toBe(eventId(40));
  expect(heartbeats).toBe(1);
  websocket.last().onClosed({ code: 1006, reason: "", opened: true });
  await settle(5_000);
  expect(websocket.last().request.since).toBe(eventId(40));
  websocket.last().onSubscribed({ position: eventId(40), recovered: true });
  websocket.last().onEvent(published(41, eventId(7)));
  expect(applied).toEqual([eventId(41)]);
  expect(resets).toEqual(["connected"]);
});

test("an attempt that was given up while its ticket was on the way never connects", async () => {
  let hand = (_: string | null): void => {};
  ticket = () =>
    new Promise((resolve) => {
      hand = resolve;
    });
  stream.start();
  stream.stop();
  hand("late");
  await settle();
  expect(websocket.attempts).toHaveLength(0);
});

test("a state event has no id and leaves the cursor alone", async () => {
  await goLive();
  websocket.last().onEvent({ id: "", prev: "", topic: "stats", kind: "stats", at: "", data: {} });
  expect(applied).toEqual(["stats"]);
  expect(stream.snapshot.position).toBe(eventId(10));
});

test("silence makes it stale and reconnects", async () => {
  await goLive();
  await settle(44_999);
  expect(stream.snapshot.state).toBe("live");
  await settle(1);
  expect(stream.snapshot.state).toBe("stale");
  expect(websocket.attempts[0]?.isClosed).toBe(true);
  await settle(5_000);
  expect(websocket.attempts).toHaveLength(2);
});

test.each([3500, 3503, 4999])("a close with %i is final until somebody asks", async (code) => {
  await goLive();
  websocket.last().onClosed({ code, reason: "no", opened: true });
  await settle(60_000);
  expect(stream.snapshot).toMatchObject({ state: "closed", reason: "no" });
  expect(websocket.attempts).toHaveLength(1);
  stream.start();
  await settle();
  expect(stream.snapshot.state).toBe("connecting");
  expect(websocket.attempts).toHaveLength(2);
});

test("two refused handshakes fall back to SSE on the same cursor", async () => {
  await goLive();
  websocket.last().onEvent(published(11));
  websocket.last().onClosed({ code: 1006, reason: "", opened: true });
  for (const _ of [1, 2]) {
    await settle(5_000);
    websocket.last().onClosed({ code: 1006, reason: "", opened: false });
  }
  await settle(5_000);
  expect(sse.last().request.since).toBe(eventId(11));
  sse.last().onSubscribed({ position: eventId(12), recovered: true });
  sse.last().onEvent(published(12));
  expect(stream.snapshot).toMatchObject({ state: "live", transport: "sse", position: eventId(12) });
  expect(applied).toEqual([eventId(11), eventId(12)]);
});

test("a handshake that never ends counts as refused", async () => {
  stream.start();
  await settle(10_000);
  expect(stream.snapshot.state).toBe("stale");
  expect(websocket.last().isClosed).toBe(true);
});

test("only a connection that lasts resets the backoff", async () => {
  const waits: number[] = [];
  await goLive();
  for (let round = 0; round < 4; round += 1) {
    const before = websocket.attempts.length;
    websocket.last().onClosed({ code: 1006, reason: "", opened: true });
    let waited = 0;
    while (websocket.attempts.length === before && waited < 30_000) {
      await settle(50);
      waited += 50;
    }
    waits.push(waited);
    websocket.last().onSubscribed({ position: eventId(10), recovered: true });
    if (round === 2) await settle(5_000);
  }
  expect(waits).toEqual([750, 1250, 2250, 750]);
});

async function waitedMs(): Promise<number> {
  const before = websocket.attempts.length;
  let waited = 0;
  while (websocket.attempts.length === before && waited < 120_000) {
    await settle(50);
    waited += 50;
  }
  return waited;
}

test("the wait that the server asked for holds for one attempt, and for no other", async () => {
  await goLive();
  websocket.last().onRetry(3_000);
  websocket.last().onClosed({ code: 3001, reason: "shutdown", opened: true });
  expect(await waitedMs()).toBe(3_000);
  websocket.last().onClosed({ code: 1006, reason: "", opened: true });
  expect(await waitedMs()).toBe(1_250);
});

test("a server that asks for less does not cut a backoff short, and one that asks for hours is not believed", async () => {
  await goLive();
  websocket.last().onClosed({ code: 1006, reason: "", opened: true });
  await waitedMs();
  websocket.last().onRetry(0);
  websocket.last().onClosed({ code: 3001, reason: "", opened: true });
  expect(await waitedMs()).toBe(1_250);
  websocket.last().onRetry(3_600_000);
  websocket.last().onClosed({ code: 3001, reason: "", opened: true });
  expect(await waitedMs()).toBe(60_000);
});

test.each([Number.NaN, -1])("a wait of %d ms is none", async (delayMs) => {
  await goLive();
  websocket.last().onRetry(delayMs);
  websocket.last().onClosed({ code: 3001, reason: "", opened: true });
  expect(await waitedMs()).toBe(750);
});

test("the backoff is drawn from the whole interval and never leaves 0.5 to 20 s", () => {
  for (const attempt of [0, 1, 5, 50, 5000]) {
    expect(backoffMs(attempt, () => 0)).toBe(500);
    expect(backoffMs(attempt, () => 1)).toBeLessThanOrEqual(20_000);
  }
  expect(backoffMs(50, () => 1)).toBe(20_000);
});

test("a waiting retry can be cut short, and only a waiting one", async () => {
  await goLive();
  stream.retryNow();
  await settle();
  expect(websocket.attempts).toHaveLength(1);
  websocket.last().onClosed({ code: 1006, reason: "", opened: true });
  stream.retryNow();
  await settle();
  expect(websocket.attempts).toHaveLength(2);
});

test("each attempt asks for a ticket of its own, and a refused one is retried later", async () => {
  const tickets = ["t1", "t2"];
  ticket = () => {
    const next = tickets.shift();
    return next ? Promise.resolve(next) : Promise.reject(new Error("refused"));
  };
  await goLive();
  expect(websocket.last().request.ticket).toBe("t1");
  websocket.last().onClosed({ code: 1006, reason: "", opened: true });
  await settle(1000);
  expect(websocket.last().request.ticket).toBe("t2");
  websocket.last().onClosed({ code: 1006, reason: "", opened: true });
  await settle(2000);
  expect(websocket.attempts).toHaveLength(2);
  expect(stream.snapshot).toMatchObject({ state: "stale", reason: "refused" });
});

test("a stopped stream ignores what its old connection still says", async () => {
  await goLive();
  stream.stop();
  websocket.last().onEvent(published(11));
  websocket.last().onClosed({ code: 1006, reason: "", opened: true });
  await settle(60_000);
  expect(applied).toEqual([]);
  expect(websocket.attempts).toHaveLength(1);
  expect(stream.snapshot.state).toBe("closed");
});
