import { readFileSync } from "node:fs";
import { fireEvent, screen, waitFor } from "@testing-library/react";
import { expect, onTestFinished, test, vi } from "vitest";
import type { AuditHead, AuditRecord, JsonObject } from "../src/api/types";
import {
  filterOf,
  KINDS,
  localOf,
  skillOf,
  stampOf,
  subjectOf,
  whatOf,
  whoOf,
} from "../src/features/audit/words";
import { time } from "../src/ui/format";
import { published } from "./fakes";
import { data, goLive, problem, routes, show } from "./page";

function record(seq: number, kind: string, members: JsonObject = {}, by = "ada"): AuditRecord {
  return {
    seq,
    at: "2026-11-21T10:00:00.000Z",
    topic: "skills",
    kind,
    subject: "skill:main/hello",
    by,
    data: members,
    sealed_at: "2026-11-21T10:00:00.500Z",
    key_id: "",
    prev: "0".repeat(64),
    hash: seq.toString(16).padStart(64, "a"),
  };
}

function head(seq: number | null, lag = 0): AuditHead {
  if (seq === null) return { seq, hash: null, sealed_at: null, keyed: null, lag };
  return {
    seq,
    hash: "0123456789abcdef".repeat(4),
    sealed_at: "2026-11-21T10:00:00.500Z",
    keyed: false,
    lag,
  };
}

test.each([
  ["skill.published", { version: 3, active_version: 3 }, "published v3"],
  ["skill.published", { version: 3, active_version: 2 }, "published v3 as a draft"],
  ["skill.activated", { version: 1 }, "activated v1"],
  ["skill.deleted", { version: 2 }, "deleted; v2 was active"],
  ["skill.pruned", { versions: [1, 2] }, "removed v1, v2"],
  ["tools.changed", { tools: ["greet", "wave"] }, "tools are now greet, wave"],
  ["tools.changed", { tools: [] }, "tools are now none"],
  ["reload.folder", { changed: 2 }, "read the folders again: 2 changed"],
  ["some.new_kind", {}, "some new kind"],
])("%s with %j reads %s", (kind, members, words) => {
  expect(whatOf(record(1, kind, members))).toBe(words);
});

test("every kind that docs/protocol.md names for the log can be asked for", () => {
  const protocol = readFileSync("../docs/protocol.md", "utf8");
  const logs = protocol.split("\n").filter((line) => / \| log \| |`reload\.skill`/.test(line));
  const named = [...logs.join("\n").matchAll(/`([a-z]+\.[a-z_]+)`/g)].map((match) => match[1]);
  expect(named.length).toBeGreaterThan(12);
  expect(KINDS).toEqual(expect.arrayContaining(named));
});

test("every status of a run is a kind that can be asked for", () => {
  const nouns = readFileSync("../services/runs/nouns.py", "utf8");
  const statuses = /RunStatus = Literal\[(.*)\]/.exec(nouns)?.[1]?.match(/\w+/g) ?? [];
  expect(statuses).toContain("working");
  expect(KINDS).toEqual(expect.arrayContaining(statuses.map((status) => `run.${status}`)));
});

test("who is named, explained, or admitted to be nobody", () => {
  expect(whoOf(record(1, "skill.published"))).toEqual({ name: "ada", meaning: "" });
  expect(whoOf(record(1, "skill.published", {}, "watcher"))).toEqual({
    name: "watcher",
    meaning: "a saved file",
  });
  expect(whoOf(record(1, "tools.ranked", {}, "")).name).toBe("the service");
  expect(whoOf({ ...record(1, "run.working", {}, ""), topic: "runs" }).name).toBe("not told");
});

test.each([
  ["skill:main/pdf", "main/pdf"],
  ["tools:main/pdf", "main/pdf"],
  ["reloads:main/pdf", "main/pdf"],
  ["reloads", null],
  ["tools", null],
  ["incident:ab/cd", null],
])("%s is about the skill %s", (subject, skill) => {
  expect(skillOf(subject)).toBe(skill);
});

test("a subject that is no skill is named in words", () => {
  expect(["reloads", "tools", "incident:ab12"].map(subjectOf)).toEqual([
    "all skills",
    "all tools",
    "incident ab12",
  ]);
});

test("a change of another year shows that year", () => {
  const now = new Date(2026, 10, 21, 12);
  expect(time(new Date(2026, 10, 21, 9, 5).getTime(), now)).toBe("09:05:00");
  expect(time(new Date(2026, 1, 3, 9, 5).getTime(), now)).toBe("03 Feb 09:05:00");
  expect(time(new Date(2025, 10, 21, 9, 5).getTime(), now)).toBe("21 Nov 2025 09:05:00");
});

test("a filter holds what is given and nothing else", () => {
  const params = new URLSearchParams("by=ada&kind=&tab=files&since=2026-11-21T10:00:00.000Z");
  expect(filterOf((name) => params.get(name))).toEqual({ by: "ada", since: "2026-11-21T10:00:00.000Z" });
});

test("a field's time becomes a UTC stamp and is shown again as it was", () => {
  vi.stubEnv("TZ", "America/New_York");
  onTestFinished(() => void vi.unstubAllEnvs());
  expect(stampOf("2026-11-21T10:30")).toBe("2026-11-21T15:30:00.000Z");
  expect(localOf("2026-11-21T15:30:00.000Z")).toBe("2026-11-21T10:30");
  // A year half typed, when clocks went by the sun: 4:56:02 behind.
  expect(localOf(stampOf("0002-11-01T09:30"))).toBe("0002-11-01T09:30");
  expect([stampOf(""), localOf(""), localOf("soon"), localOf("+275760-09-13T00:00:00Z")]).toEqual([
    "",
    "",
    "",
    "",
  ]);
});

test("records, their head and a filter in the address", async () => {
  const asked: string[] = [];
  routes["/api/v1/audit/head"] = () => data(head(48213, 2));
  routes["/api/v1/audit"] = (_, query) => {
    asked.push(query.toString());
    const kind = query.get("kind");
    const items = [
      record(8, "skill.activated", { version: 1 }),
      record(7, "skill.published", { version: 2 }),
    ];
    return data({ items: items.filter((item) => !kind || item.kind === kind), next_cursor: null });
  };
  show("#/audit?by=ada");
  const opener = await screen.findByRole("button", { name: "activated v1" });
  expect(screen.getByText("0123456789ab")).toBeTruthy();
  expect(screen.getByText(/2 changes not sealed yet/)).toBeTruthy();
  expect(opener.getAttribute("aria-expanded")).toBe("false");
  fireEvent.click(opener);
  expect(screen.getByRole("button", { name: "Copy the hash" }).textContent).toBe(record(8, "").hash);
  expect(screen.getByText(/"version": 1/)).toBeTruthy();
  fireEvent.change(screen.getByLabelText("Kind"), { target: { value: "skill.published" } });
  await waitFor(() => expect(screen.queryByRole("button", { name: "activated v1" })).toBeNull());
  expect(asked.at(-1)).toBe("by=ada&kind=skill.published&limit=50");
  expect(window.location.hash).toBe("#/audit?by=ada&kind=skill.published");
});

test("a kind that is chosen while a name is being typed leaves both in the address", async () => {
  routes["/api/v1/audit/head"] = () => data(head(8));
  routes["/api/v1/audit"] = () => data({ items: [record(8, "skill.activated")], next_cursor: null });
  show("#/audit");
  fireEvent.change(await screen.findByLabelText("Who"), { target: { value: " ada" } });
  fireEvent.change(screen.getByLabelText("Kind"), { target: { value: "skill.activated" } });
  await waitFor(() => expect(window.location.hash).toBe("#/audit?by=ada&kind=skill.activated"));
  window.location.hash = "#/audit";
  await waitFor(() => expect(screen.getByLabelText<HTMLInputElement>("Who").value).toBe(""));
});

test("older records are read from the cursor", async () => {
  routes["/api/v1/audit/head"] = () => data(head(8));
  routes["/api/v1/audit"] = (_, query) =>
    query.get("cursor") === "8"
      ? data({ items: [record(7, "skill.published", { version: 2 })], next_cursor: null })
      : data({ items: [record(8, "skill.activated", { version: 1 })], next_cursor: "8" });
  show("#/audit");
  fireEvent.click(await screen.findByRole("button", { name: "Show older" }));
  expect(await screen.findByRole("button", { name: /published v2/ })).toBeTruthy();
  expect(screen.queryByRole("button", { name: "Show older" })).toBeNull();
});

test("a change appears once it is sealed", async () => {
  const heads = [head(7), head(7), head(7, 1)];
  let pagesRead = 0;
  routes["/api/v1/audit/head"] = () => data(heads.shift() ?? head(11));
  routes["/api/v1/audit"] = () => {
    pagesRead += 1;
    const seq = heads.length > 0 ? 7 : 11;
    return data({ items: [record(seq, "skill.restored", { version: seq })] });
  };
  show("#/audit");
  await screen.findByRole("button", { name: "restored v7" });
  const socket = await goLive();
  // A stream that begins anew has everything read again.
  await waitFor(() => expect([heads.length, pagesRead]).toEqual([1, 2]));
  socket.deliver({ method: "event", params: published(11) });
  expect(await screen.findByText(/1 change not sealed yet/)).toBeTruthy();
  expect(pagesRead).toBe(2);
  expect(await screen.findByRole("button", { name: "restored v11" }, { timeout: 3000 })).toBeTruthy();
  expect(screen.queryByText(/not sealed yet/)).toBeNull();
});

test("nothing is told apart: no change yet, or none that matches", async () => {
  routes["/api/v1/audit/head"] = () => data(head(null));
  routes["/api/v1/audit"] = () => data({ items: [], next_cursor: null });
  show("#/audit");
  expect(await screen.findByText("No change has been made yet")).toBeTruthy();
  window.location.hash = "#/audit?by=nobody";
  expect(await screen.findByText("Nothing matches")).toBeTruthy();
});

test("a key without the scope is told which it takes", async () => {
  const refusal = () => problem(403, "insufficient_scope", "this needs the scope 'admin'");
  routes["/api/v1/audit/head"] = refusal;
  routes["/api/v1/audit"] = refusal;
  show("#/audit");
  expect(await screen.findByText("This key may not read the audit log")).toBeTruthy();
  expect(screen.queryByRole("alert")).toBeNull();
});
