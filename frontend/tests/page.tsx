/** The whole dashboard in a test, with its server played by `routes` and its socket by `FakeSocket`. */
import { cleanup, render, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, vi } from "vitest";
import { App } from "../src/app";
import { ServicesProvider } from "../src/hooks/useServices";
import { makeServices, type Services } from "../src/services";
import { eventId, FakeSocket } from "./fakes";

type Route = (init: RequestInit | undefined, query: URLSearchParams) => Response | Promise<Response>;

/** What the server answers, by path; set by each test. */
export let routes: Record<string, Route>;
export let sockets: FakeSocket[];
export let services: Services;

export function data(value: unknown): Response {
  return Response.json({ success: true, data: value, performance: { duration_ms: 1, cache_hit: false } });
}

export function problem(status: number, code: string, detail: string): Response {
  return Response.json(
    { title: "No", status, code, detail, success: false, request_id: "req-1" },
    { status },
  );
}

export function show(hash: string): void {
  window.location.hash = hash;
  services = makeServices((url) => {
    const socket = new FakeSocket(url);
    sockets.push(socket);
    return socket;
  });
  services.queryClient.setDefaultOptions({ queries: { retry: false, networkMode: "always" } });
  render(
    <ServicesProvider services={services}>
      <App />
    </ServicesProvider>,
  );
}

export async function goLive(): Promise<FakeSocket> {
  await vi.waitFor(() => expect(sockets).toHaveLength(1));
  const [socket] = sockets;
  if (!socket) throw new Error("no socket was opened");
  socket.accept();
  socket.deliver({ id: 1, result: { position: eventId(10), recovered: false, replayed: 0 } });
  await screen.findByText("live");
  return socket;
}

beforeEach(() => {
  sockets = [];
  routes = {};
  sessionStorage.clear();
  vi.stubGlobal("fetch", async (input: string, init?: RequestInit) => {
    const [path = "", query] = input.split("?");
    return (
      routes[path]?.(init, new URLSearchParams(query)) ?? problem(404, "not_found", `nothing at ${path}`)
    );
  });
});

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});
