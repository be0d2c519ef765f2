import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { RpcClient, type RpcListener } from "../src/live/rpcClient";
import { FakeSocket } from "./fakes";

let sockets: FakeSocket[];
let rpc: RpcClient;
let listener: RpcListener & { notifications: unknown[]; closes: unknown[] };

function socket(): FakeSocket {
  const latest = sockets.at(-1);
  if (!latest) throw new Error("no socket was opened");
  return latest;
}

beforeEach(() => {
  vi.useFakeTimers();
  sockets = [];
  rpc = new RpcClient((url) => {
    sockets.push(new FakeSocket(url));
    return socket();
  });
  const notifications: unknown[] = [];
  const closes: unknown[] = [];
  listener = {
    notifications,
    closes,
    onOpen: () => {},
    onNotification: (method, params) => notifications.push([method, params]),
    onClose: (code, reason, opened) => closes.push([code, reason, opened]),
  };
});

afterEach(() => {
  vi.useRealTimers();
});

test("answers reach their own calls, in whatever order they come", async () => {
  rpc.open("ws://x", listener);
  socket().accept();
  const first = rpc.call("a", {});
  const second = rpc.call("b", {});
  socket().deliver({ jsonrpc: "2.0", id: 2, result: "two" });
  socket().deliver([{ jsonrpc: "2.0", id: 1, result: "one" }]);
  expect(await Promise.all([first, second])).toEqual(["one", "two"]);
});

test("calls made during the handshake are sent when it is done", async () => {
  rpc.open("ws://x", listener);
  const call = rpc.call("subscribe", { topics: ["skills"] });
  expect(socket().sent).toEqual([]);
  socket().accept();
  expect(socket().sent).toEqual([
    { jsonrpc: "2.0", id: 1, method: "subscribe", params: { topics: ["skills"] } },
  ]);
  socket().deliver({ id: 1, result: true });
  expect(await call).toBe(true);
});

test("an error answer rejects with its code and data", async () => {
  rpc.open("ws://x", listener);
  socket().accept();
  const call = rpc.call("a", {});
  socket().deliver({ id: 1, error: { code: -32602, message: "bad", data: { code: "invalid" } } });
  await expect(call).rejects.toMatchObject({ code: -32602, message: "bad", data: { code: "invalid" } });
});

test("a call without an answer times out and tells the server to stop", async () => {
  rpc.open("ws://x", listener);
  socket().accept();
  const call = rpc.call("slow", {}, { timeoutMs: 1000 });
  const outcome = expect(call).rejects.toMatchObject({ code: "timeout" });
  await vi.advanceTimersByTimeAsync(1000);
  await outcome;
  expect(socket().sent.at(-1)).toMatchObject({ method: "notifications/cancelled", params: { requestId: 1 } });
});

test("aborting a call rejects it as cancelled", async () => {
  rpc.open("ws://x", listener);
  socket().accept();
  const abort = new AbortController();
  const call = rpc.call("slow", {}, { signal: abort.signal });
  abort.abort();
  await expect(call).rejects.toMatchObject({ code: "cancelled" });
});

test("a closing socket settles every pending call, and the listener hears of it once", async () => {
  rpc.open("ws://x", listener);
  socket().accept();
  const calls = [rpc.call("a", {}), rpc.call("b", {})].map((call) =>
    expect(call).rejects.toMatchObject({ code: "disconnected" }),
  );
  socket().drop(1006);
  socket().drop(1006);
  await Promise.all(calls);
  expect(listener.closes).toEqual([[1006, "", true]]);
  await expect(rpc.call("a", {})).rejects.toMatchObject({ code: "disconnected" });
});

test("the outbound queue is bounded", async () => {
  rpc.open("ws://x", listener);
  const waiting = Array.from({ length: 64 }, () => rpc.call("a", {}).catch(() => "refused later"));
  await expect(rpc.call("a", {})).rejects.toMatchObject({ code: "overloaded" });
  socket().drop(1006);
  await Promise.all(waiting);
});

test("a server that does not read is not fed", async () => {
  rpc.open("ws://x", listener);
  socket().accept();
  socket().bufferedAmount = 2 * 1024 * 1024;
  await expect(rpc.call("a", {})).rejects.toMatchObject({ code: "overloaded" });
});

test("what an older socket still says is ignored", () => {
  rpc.open("ws://one", listener);
  const older = socket();
  rpc.open("ws://two", listener);
  older.accept();
  older.deliver({ method: "event", params: {} });
  older.drop(1006);
  expect(listener.notifications).toEqual([]);
  expect(listener.closes).toEqual([]);
  expect(rpc.isOpen).toBe(false);
});

test("a request of the server is answered with 'no such method', and garbage is skipped", () => {
  rpc.open("ws://x", listener);
  socket().accept();
  socket().deliver("{not json");
  socket().deliver({ id: "s-1", method: "confirm", params: {} });
  expect(socket().sent).toMatchObject([{ id: "s-1", error: { code: -32601 } }]);
});
