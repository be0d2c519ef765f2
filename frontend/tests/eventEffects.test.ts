import { QueryClient } from "@tanstack/react-query";
import { beforeEach, expect, test, vi } from "vitest";
import { keys, type SkillList } from "../src/api/queries";
import type { Change, SkillSummary } from "../src/api/types";
import { applyEvent } from "../src/live/eventEffects";
import { QueryRefresher } from "../src/live/queryRefresher";
import { hello, published } from "./fakes";

let client: QueryClient;

beforeEach(() => {
  client = new QueryClient();
  client.setQueryData<SkillList>(keys.skills, { items: [hello], isCut: false });
  client.setQueryData<Change[]>(keys.changes, []);
});

function listed(): SkillSummary[] {
  return client.getQueryData<SkillList>(keys.skills)?.items ?? [];
}

test("a published version replaces its row without reading the catalog again", () => {
  const stale = applyEvent(client, published(11));
  expect(listed()).toMatchObject([{ id: "main/hello", version: 2, seq: 11, description: "Says hello" }]);
  expect(stale).not.toContainEqual(keys.skills);
  expect(stale).toContainEqual(keys.skill("main/hello"));
});

test("a new skill takes its place in the order of ids", () => {
  applyEvent(client, published(11, "", { id: "main/abacus", name: "abacus" }));
  expect(listed().map((skill) => skill.id)).toEqual(["main/abacus", "main/hello"]);
});

test("an older event does not undo a newer row", () => {
  applyEvent(client, published(5));
  expect(listed()).toEqual([hello]);
});

test("a draft leaves the row alone and has the catalog read again", () => {
  const stale = applyEvent(client, published(11, "", { active_version: 1 }));
  expect(listed()).toEqual([hello]);
  expect(stale).toContainEqual(keys.skills);
});

test("every event enters the feed once, newest first", () => {
  applyEvent(client, published(11));
  applyEvent(client, { ...published(12), kind: "something.new" });
  applyEvent(client, published(11));
  expect(client.getQueryData<Change[]>(keys.changes)?.map((change) => change.seq)).toEqual([12, 11]);
});

test("every event of the log has the head of the audit log read again, whatever its kind", () => {
  expect(applyEvent(client, published(11))).toContainEqual(keys.auditHead);
  expect(applyEvent(client, { ...published(12), kind: "something.new" })).toEqual([keys.auditHead]);
});

test("a state event is its topic's new value and stays out of the feed", () => {
  const data = { uptime_s: 7 };
  const stale = applyEvent(client, { id: "", prev: "", topic: "stats", kind: "stats.changed", at: "", data });
  expect(stale).toEqual([]);
  expect(client.getQueryData(keys.status)).toEqual(data);
  expect(client.getQueryData<Change[]>(keys.changes)).toEqual([]);
});

test("another replica's state, and one that is gone, leave what this one said alone", () => {
  client.setQueryData(keys.status, { uptime_s: 7 });
  const event = { id: "", prev: "", topic: "stats", at: "", data: { uptime_s: 9 } };
  const state = { key: "b", coverage: "fleet" as const };
  applyEvent(client, { ...event, kind: "stats.changed", state: { ...state, isOwn: false } });
  applyEvent(client, { ...event, kind: "stats.gone", state: { ...state, isOwn: true } });
  expect(client.getQueryData(keys.status)).toEqual({ uptime_s: 7 });
});

test("a burst of events reads each list again once", () => {
  vi.useFakeTimers();
  const invalidate = vi.spyOn(client, "invalidateQueries");
  const refresher = new QueryRefresher(client);
  for (let seq = 20; seq < 70; seq += 1) refresher.request([keys.skills, keys.sources]);
  vi.advanceTimersByTime(100);
  expect(invalidate.mock.calls.map(([filter]) => filter?.queryKey)).toEqual([keys.skills, keys.sources]);
  vi.useRealTimers();
});

test.each([
  ["skill.pinned", false],
  ["skill.unpinned", false],
  ["skill.pruned", false],
  ["skill.restored", true],
  ["skill.removed", true],
])("%s has the skill read again; the list as well: %s", (kind, changesList) => {
  const stale = applyEvent(client, { ...published(11), kind });
  expect(stale).toContainEqual(keys.skill("main/hello"));
  expect(stale.some((key) => key[0] === "skills")).toBe(changesList);
});
