import { expect, test, vi } from "vitest";
import { FleetStats } from "../src/live/fleetStats";
import { asEvent, type LiveEvent } from "../src/live/transport";
import { published } from "./fakes";

function stats(replica: string, changes: Record<string, unknown> = {}): LiveEvent {
  const event = asEvent({
    topic: "stats",
    key: replica,
    kind: "stats.changed",
    at: "2026-11-21T10:00:00.000Z",
    state_id: `${replica}-1`,
    own: replica === "b",
    coverage: "fleet",
    snapshot: false,
    data: { replica, uptime_s: 1 },
    ...changes,
  });
  if (!event) throw new Error("not an event");
  return event;
}

test("the latest of every replica is kept, in the order of their names, the own one marked", () => {
  const fleet = new FleetStats();
  const watcher = vi.fn();
  const stop = fleet.watch(watcher);
  fleet.apply(stats("c"));
  fleet.apply(stats("b"));
  fleet.apply(stats("c", { data: { replica: "c", uptime_s: 2 } }));
  expect(fleet.snapshot.coverage).toBe("fleet");
  expect(fleet.snapshot.replicas).toMatchObject([
    { replica: "b", isOwn: true, stats: { uptime_s: 1 } },
    { replica: "c", isOwn: false, stats: { uptime_s: 2 } },
  ]);
  expect(watcher).toHaveBeenCalledTimes(3);
  stop();
  fleet.forget();
  expect(watcher).toHaveBeenCalledTimes(3);
});

test("a lost Redis is told, and a replica that is gone goes", () => {
  const fleet = new FleetStats();
  fleet.apply(stats("b"));
  fleet.apply(stats("c"));
  fleet.apply(stats("b", { coverage: "degraded" }));
  expect(fleet.snapshot.coverage).toBe("degraded");
  fleet.apply(stats("c", { kind: "stats.gone", data: null, coverage: "degraded" }));
  expect(fleet.snapshot.replicas.map(({ replica }) => replica)).toEqual(["b"]);
});

test("a new connection starts from nothing, and other topics are not statistics", () => {
  const fleet = new FleetStats();
  fleet.apply(stats("b", { topic: "health" }));
  fleet.apply(published(11));
  expect(fleet.snapshot).toEqual({ coverage: null, replicas: [] });
  fleet.apply(stats("b"));
  fleet.forget();
  expect(fleet.snapshot).toEqual({ coverage: null, replicas: [] });
});

test("a coverage that this page does not know is none that promises other replicas", () => {
  expect(stats("b", { coverage: "galaxy" }).state).toEqual({ key: "b", isOwn: true, coverage: "local" });
});
