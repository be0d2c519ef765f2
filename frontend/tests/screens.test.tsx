import { fireEvent, screen } from "@testing-library/react";
import { expect, test, vi } from "vitest";
import { eventId, hello, published } from "./fakes";
import { data, goLive, problem, routes, show, sockets } from "./page";

const greet = {
  name: "main_hello_greet",
  description: "Greets somebody",
  inputSchema: { type: "object", required: ["who"], properties: { who: { type: "string", default: "Ada" } } },
};

test("the catalog is loading, then shows what there is", async () => {
  routes["/api/v1/skills"] = () => data({ items: [hello], next_cursor: null, revision: 7 });
  show("#/catalog");
  expect(screen.getByRole("status", { name: "Loading" })).toBeTruthy();
  expect(await screen.findByRole("link", { name: /main\/\s*hello/ })).toBeTruthy();
  expect(screen.getByText("connecting")).toBeTruthy();
});

test("an empty catalog says what to do", async () => {
  routes["/api/v1/skills"] = () => data({ items: [], next_cursor: null, revision: 0 });
  show("#/catalog");
  expect(await screen.findByText("The catalog is empty")).toBeTruthy();
});

test("an error shows its code and request, and a retry that works", async () => {
  routes["/api/v1/skills"] = () => problem(503, "unavailable", "The database did not answer.");
  show("#/catalog");
  const alert = await screen.findByRole("alert");
  expect(alert.textContent).toContain("The database did not answer.");
  expect(alert.textContent).toContain("unavailable");
  expect(alert.textContent).toContain("req-1");
  routes["/api/v1/skills"] = () => data({ items: [hello], next_cursor: null, revision: 7 });
  fireEvent.click(screen.getByRole("button", { name: "Retry" }));
  expect(await screen.findByRole("link", { name: /main\/\s*hello/ })).toBeTruthy();
});

test("a published version appears in the open catalog, and a lost connection is admitted", async () => {
  routes["/api/v1/skills"] = () => data({ items: [hello], next_cursor: null, revision: 7 });
  show("#/catalog");
  await screen.findByText("v1");
  const socket = await goLive();
  socket.deliver({ method: "event", params: published(11) });
  expect(await screen.findByText("v2")).toBeTruthy();
  socket.drop(3008, "slow");
  expect(await screen.findByText("stale")).toBeTruthy();
  expect(screen.getByText(/^old, of/)).toBeTruthy();
});

function statsOf(replica: string, own: boolean, coverage: string) {
  return {
    method: "event",
    params: {
      topic: "stats",
      key: replica,
      kind: "stats.changed",
      at: "2026-11-21T10:00:00.000Z",
      state_id: `${replica}-1`,
      own,
      coverage,
      snapshot: false,
      data: {
        version: "1",
        replica,
        uptime_s: 120,
        position: eventId(10),
        subscribers: { websocket: 2, sse: 1 },
        notices: [],
        workers: [],
        search: {
          documents: 1,
          vectors: 0,
          model: "",
          mode: "lexical",
          index_seq: 10,
          p50_ms: 1,
          p95_ms: 2,
          p99_ms: 3,
        },
      },
    },
  };
}

test("the overview shows every replica that is heard, and says when Redis is lost", async () => {
  show("#/");
  expect(await screen.findByText("No replica has reported")).toBeTruthy();
  const socket = await goLive();
  socket.deliver(statsOf("aa11", true, "fleet"));
  socket.deliver(statsOf("bb22", false, "fleet"));
  expect(await screen.findByText("bb22")).toBeTruthy();
  expect(screen.getByText("all replicas")).toBeTruthy();
  expect(screen.getByText("serves this page").parentElement?.textContent).toContain("aa11");
  socket.deliver(statsOf("aa11", true, "degraded"));
  socket.deliver({
    method: "event",
    params: { topic: "stats", key: "bb22", kind: "stats.gone", coverage: "degraded" },
  });
  expect(await screen.findByText(/Redis is lost/)).toBeTruthy();
  expect(screen.queryByText("bb22")).toBeNull();
  socket.deliver({ method: "bye", params: { code: 3001, reason: "shutdown", retryMs: 0 } });
  socket.drop(3001, "shutdown");
  await vi.waitFor(() => expect(sockets).toHaveLength(2));
  sockets[1]?.accept();
  const [subscribe] = sockets[1]?.sent ?? [];
  sockets[1]?.deliver({ id: subscribe?.id, result: { position: eventId(10), recovered: true, replayed: 0 } });
  expect(await screen.findByText("No replica has reported")).toBeTruthy();
});

test("every page of the catalog is read", async () => {
  const pages: Record<string, unknown>[] = [
    { items: [hello], next_cursor: "c1", revision: 7 },
    { items: [{ ...hello, id: "main/other", name: "other" }], next_cursor: null, revision: 7 },
  ];
  const answers = [...pages, ...pages];
  routes["/api/v1/skills"] = () => data(answers.shift());
  show("#/catalog");
  expect(await screen.findByRole("link", { name: /main\/\s*other/ })).toBeTruthy();
});

test("a refused request asks for a key, and a good one opens the screen", async () => {
  const keys: (string | null)[] = [];
  routes["/api/v1/skills"] = (init) => {
    const key = new Headers(init?.headers).get("Authorization");
    keys.push(key);
    if (key !== "Bearer sesame") return problem(401, "unauthenticated", "A key is needed.");
    return data({ items: [hello], next_cursor: null, revision: 7 });
  };
  routes["/api/v1/tickets"] = () => data({ ticket: "short-lived" });
  show("#/catalog");
  fireEvent.change(await screen.findByLabelText("API key"), { target: { value: "sesame" } });
  fireEvent.click(screen.getByRole("button", { name: "Connect" }));
  expect(await screen.findByRole("link", { name: /main\/\s*hello/ })).toBeTruthy();
  expect(keys.at(-1)).toBe("Bearer sesame");
  await vi.waitFor(() => expect(sockets.at(-1)?.url).toContain("ticket=short-lived"));
});

function routeSkill(): void {
  routes["/api/v1/skills"] = () => data({ items: [hello], next_cursor: null, revision: 7 });
  routes["/api/v1/skills/main/hello"] = () =>
    data({ ...hello, frontmatter: {}, manifest: [], diagnostics: [], tools: [greet] });
}

const answer = { result: "Hello Ada", logs: "", skill: "main/hello", version: 1, digest: hello.digest };

test("a tool runs over REST while there is no socket", async () => {
  routeSkill();
  const bodies: unknown[] = [];
  routes["/api/v1/tools/main_hello_greet/call"] = (init) => {
    bodies.push(JSON.parse(String(init?.body)));
    return data({ ...answer, warm: true, worker_pid: 7, duration_ms: 3 });
  };
  show("#/catalog/main/hello?tab=tools");
  fireEvent.click(await screen.findByText("Run"));
  expect(await screen.findByText("Hello Ada")).toBeTruthy();
  expect(bodies).toEqual([{ arguments: { who: "Ada" } }]);
});

test("a tool runs over the live socket when it is open, and its failure is shown", async () => {
  routeSkill();
  show("#/catalog/main/hello?tab=tools");
  const socket = await goLive();
  fireEvent.click(await screen.findByText("Run"));
  await vi.waitFor(() => expect(socket.sent.at(-1)).toMatchObject({ method: "call_tool" }));
  expect(socket.sent.at(-1)).toMatchObject({
    params: { tool: "main_hello_greet", arguments: { who: "Ada" } },
  });
  const { id } = socket.sent.at(-1) ?? {};
  socket.deliver({ id, error: { code: -32000, message: "It broke", data: { code: "tool_failed" } } });
  expect(await screen.findByText("It broke")).toBeTruthy();
  expect(screen.getByText("tool_failed")).toBeTruthy();
});

test("arguments that are not a JSON object are refused before anything is sent", async () => {
  routeSkill();
  show("#/catalog/main/hello?tab=tools");
  fireEvent.change(await screen.findByRole("textbox", { hidden: true }), { target: { value: "[1]" } });
  fireEvent.click(screen.getByText("Run"));
  expect(await screen.findByText(/Arguments are a JSON object/)).toBeTruthy();
});

function streamed(...frames: string[]): { answer: Response; send: (frame: string) => void; end: () => void } {
  let controller: ReadableStreamDefaultController<Uint8Array>;
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    start: (opened) => {
      controller = opened;
      for (const frame of frames) opened.enqueue(encoder.encode(frame));
    },
  });
  return {
    answer: new Response(body),
    send: (frame) => controller.enqueue(encoder.encode(frame)),
    end: () => controller.close(),
  };
}

test("a key is followed through the tiers, newest step first, until the stream ends", async () => {
  routeSkill();
  const stream = streamed('event: hello\ndata: {"key":"detail:main/hello","replica":"r1"}\n\n');
  routes["/api/v1/cache/trace/detail%3Amain/hello"] = () => stream.answer;
  show("#/catalog/main/hello?tab=trace");
  expect(await screen.findByText("Following reads in replica r1.")).toBeTruthy();
  expect(screen.getByText("Nothing has read this skill since you look")).toBeTruthy();
  const step = { key: "detail:main/hello", at: "2026-11-20T10:00:00.000Z", lost: 0 };
  stream.send(`data: ${JSON.stringify({ ...step, kind: "load_finished", facts: { ms: 1.239 } })}\n\n`);
  stream.send(`data: ${JSON.stringify({ ...step, kind: "l1_hit", facts: { asof: 7 } })}\n\n`);
  await screen.findByText("memory answered");
  const rows = screen.getAllByRole("row", { hidden: true }).map((row) => row.textContent);
  expect(rows.at(-2)).toContain("memory answered");
  expect(rows.at(-1)).toContain("ms 1.24");
  stream.end();
  expect(await screen.findByText("The stream has ended.")).toBeTruthy();
  fireEvent.click(screen.getByText("Follow again"));
  expect(await screen.findByText("Connecting")).toBeTruthy();
});

test("a trace that is refused says why", async () => {
  routeSkill();
  routes["/api/v1/cache/trace/detail%3Amain/hello"] = () => problem(429, "exhausted", "Too many are traced.");
  show("#/catalog/main/hello?tab=trace");
  expect(await screen.findByText("Too many are traced.")).toBeTruthy();
});
