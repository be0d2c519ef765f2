import { expect, test, vi } from "vitest";
import { RpcClient } from "../src/live/rpcClient";
import { sseTransport } from "../src/live/sseTransport";
import type { TransportListener } from "../src/live/transport";
import { websocketTransport } from "../src/live/websocketTransport";
import { eventId, FakeSocket, published } from "./fakes";

function recorder() {
  const seen: unknown[] = [];
  const listener: TransportListener = {
    onSubscribed: ({ position, recovered }) => seen.push(["subscribed", position, recovered]),
    onEvent: ({ id }) => seen.push(["event", id]),
    onReset: (position, reason) => seen.push(["reset", position, reason]),
    onHeartbeat: (position) => seen.push(["heartbeat", position]),
    onRetry: (delayMs) => seen.push(["retry", delayMs]),
    onClosed: ({ code, opened }) => seen.push(["closed", code, opened]),
  };
  return { seen, listener };
}

const request = { topics: ["skills"], since: eventId(5), ticket: "t" };

function openSocket() {
  const sockets: FakeSocket[] = [];
  const rpc = new RpcClient((url) => {
    const socket = new FakeSocket(url);
    sockets.push(socket);
    return socket;
  });
  const { seen, listener } = recorder();
  const connection = websocketTransport(rpc, (ticket) => `ws://x/?ticket=${ticket}`)(request, listener);
  const [socket] = sockets;
  if (!socket) throw new Error("no socket was opened");
  return { socket, seen, connection };
}

test("the WebSocket subscribes with its cursor and passes on what the server notifies", async () => {
  const { socket, seen } = openSocket();
  expect(socket.url).toBe("ws://x/?ticket=t");
  socket.accept();
  expect(socket.sent).toMatchObject([
    { method: "subscribe", params: { topics: ["skills"], since: eventId(5) } },
  ]);
  socket.deliver({ id: 1, result: { position: eventId(5), recovered: true, replayed: 0 } });
  await vi.waitFor(() => expect(seen).toHaveLength(1));
  socket.deliver({ method: "event", params: published(6) });
  socket.deliver({ method: "reset", params: { reason: "trimmed", position: eventId(9) } });
  socket.deliver({ method: "heartbeat", params: { position: eventId(9) } });
  socket.deliver({ method: "bye", params: { code: 3001, reason: "shutdown", retryMs: 1234 } });
  socket.drop(3001);
  expect(seen).toEqual([
    ["subscribed", eventId(5), true],
    ["event", eventId(6)],
    ["reset", eventId(9), "trimmed"],
    ["heartbeat", eventId(9)],
    ["retry", 1234],
    ["closed", 3001, true],
  ]);
});

test("a refused subscription closes the socket and is reported as a close that reconnects", async () => {
  const { socket, seen } = openSocket();
  socket.accept();
  socket.deliver({ id: 1, error: { code: -32000, message: "not now" } });
  await vi.waitFor(() => expect(seen).toEqual([["closed", 4000, true]]));
  expect(socket.closedWith).toBe(1000);
});

test("a handshake that the server refuses was never open", () => {
  const { socket, seen } = openSocket();
  socket.drop(1006);
  expect(seen).toEqual([["closed", 1006, false]]);
});

test("the event stream passes on hello, events, resets and heartbeats, and its end", async () => {
  const text = [
    `event: hello\nretry: 300\ndata: {"position":"${eventId(5)}","recovered":true}\n\n`,
    `id: ${eventId(6)}\ndata: ${JSON.stringify(published(6))}\n\n`,
    ": beat\n\n",
    `event: reset\ndata: {"reason":"slow","position":"${eventId(9)}"}\n\n`,
    "event: bye\nretry: 2500\ndata: {}\n\n",
  ].join("");
  const { seen, listener } = recorder();
  const fetchStream = vi.fn(() => Promise.resolve(new Response(text)));
  sseTransport((topics, since, ticket) => `/events?${topics}&${since}&${ticket}`, fetchStream)(
    request,
    listener,
  );
  await vi.waitFor(() => expect(seen).toHaveLength(7));
  expect(fetchStream).toHaveBeenCalledWith(`/events?skills&${eventId(5)}&t`, expect.anything());
  expect(seen).toEqual([
    ["retry", 300],
    ["subscribed", eventId(5), true],
    ["event", eventId(6)],
    ["heartbeat", eventId(6)],
    ["reset", eventId(9), "slow"],
    ["retry", 2500],
    ["closed", 1006, true],
  ]);
});

test.each([
  [401, 3500],
  [403, 3503],
  [503, 1006],
])("an event stream refused with %i closes with %i", async (status, code) => {
  const { seen, listener } = recorder();
  sseTransport(
    () => "/events",
    () => Promise.resolve(new Response("", { status })),
  )(request, listener);
  await vi.waitFor(() => expect(seen).toEqual([["closed", code, false]]));
});

test("a closed event stream says nothing more", async () => {
  const { seen, listener } = recorder();
  const connection = sseTransport(
    () => "/events",
    (_, init) =>
      new Promise((_resolve, reject) => {
        init?.signal?.addEventListener("abort", () => reject(new Error("aborted")));
      }),
  )(request, listener);
  connection.close();
  await Promise.resolve();
  expect(seen).toEqual([]);
});
