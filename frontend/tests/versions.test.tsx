import { fireEvent, screen, within } from "@testing-library/react";
import { beforeEach, expect, test, vi } from "vitest";
import { data, problem, routes, show } from "./page";

const SKILL = "/api/v1/skills/main/hello";
const digest = `sha256:${"a".repeat(64)}`;

function version(number: number, more: object = {}) {
  return {
    version: number,
    digest,
    grade: "strict",
    created_at: "2026-11-20T10:00:00.000Z",
    created_by: "ada",
    active: number === 2,
    pinned: false,
    manifest: [],
    ...more,
  };
}

function detail(more: object = {}) {
  const summary = {
    id: "main/hello",
    owner: "main",
    name: "hello",
    description: "",
    digest,
    grade: "strict",
  };
  const rest = {
    frontmatter: {},
    manifest: [],
    diagnostics: [],
    tools: [],
    pinned: [],
    deleted_version: null,
  };
  return { ...summary, ...rest, version: 2, status: "active", seq: 7, ...more };
}

let asked: [string, unknown][];

/** Answers a POST with `answer` and notes what was asked. */
function takes(path: string, answer = () => data({ id: "main/hello", seq: 8 })): void {
  routes[path] = (init) => {
    asked.push([path, JSON.parse(String(init?.body))]);
    return answer();
  };
}

beforeEach(() => {
  asked = [];
  routes["/api/v1/skills"] = () => data({ items: [], next_cursor: null, revision: 0 });
  routes[SKILL] = () => data(detail());
  routes[`${SKILL}/versions`] = () => data({ items: [version(2), version(1, { pinned: true })] });
});

async function row(number: number) {
  return within(await screen.findByRole("listitem", { name: `Version ${number}` }));
}

test("a pin is set at once, and taken away only when that was confirmed", async () => {
  takes(`${SKILL}/pin`);
  show("#/catalog/main/hello?tab=versions");
  fireEvent.click((await row(2)).getByRole("button", { name: "Pin" }));
  await vi.waitFor(() => expect(asked).toEqual([[`${SKILL}/pin`, { version: 2, pinned: true }]]));

  const oldest = await row(1);
  fireEvent.click(oldest.getByRole("button", { name: "Unpin" }));
  expect(document.activeElement).toBe(oldest.getByRole("button", { name: "Unpin v1" }));
  fireEvent.click(oldest.getByRole("button", { name: "Cancel" }));
  expect(document.activeElement).toBe(oldest.getByRole("button", { name: "Unpin" }));
  expect(asked).toHaveLength(1);
  fireEvent.click(oldest.getByRole("button", { name: "Unpin" }));
  fireEvent.click(oldest.getByRole("button", { name: "Unpin v1" }));
  await vi.waitFor(() => expect(asked.at(-1)).toEqual([`${SKILL}/pin`, { version: 1, pinned: false }]));
});

test("a refusal is shown at the version that it is about", async () => {
  takes(`${SKILL}/pin`, () => problem(403, "insufficient_scope", "this needs the scope 'publish'"));
  routes[`${SKILL}/export`] = () => problem(503, "unavailable", "The blobs are out of reach.");
  show("#/catalog/main/hello?tab=versions");
  const newest = await row(2);
  fireEvent.click(newest.getByRole("button", { name: "Pin" }));
  expect((await newest.findByRole("alert")).textContent).toContain("this needs the scope 'publish'");
  fireEvent.click((await row(1)).getByRole("button", { name: "Export zip" }));
  expect((await (await row(1)).findByRole("alert")).textContent).toContain("The blobs are out of reach.");
});

test("a quarantined version can neither be activated, compared nor exported", async () => {
  routes[`${SKILL}/versions`] = () => data({ items: [version(3, { grade: "quarantined" }), version(2)] });
  show("#/catalog/main/hello?tab=versions");
  const newest = await row(3);
  expect(newest.getAllByRole("button").map((button) => button.textContent)).toEqual(["aaaaaaaa", "Pin"]);
  expect(newest.queryByRole("link")).toBeNull();
});

test("two versions are compared line by line, and what cannot be is named", async () => {
  routes[`${SKILL}/diff`] = () =>
    data({
      files: [
        {
          path: "SKILL.md",
          change: "changed",
          diff: "--- SKILL.md\n+++ SKILL.md\n@@ -1 +1 @@\n-old\n+new\n",
        },
        { path: "logo.png", change: "added", binary: true },
        { path: "big.txt", change: "removed", too_large: true },
      ],
      frontmatter: [{ key: "license", from: null, to: "MIT" }],
    });
  show("#/catalog/main/hello?tab=versions&from=1&to=2");
  expect((await screen.findByText("-old")).className).toBe("line-removed");
  expect(screen.getByText("+new").className).toBe("line-added");
  expect(screen.queryByText("--- SKILL.md")).toBeNull();
  expect(screen.getByText("Not text.")).toBeTruthy();
  expect(screen.getByText("Too large to compare line by line.")).toBeTruthy();
  expect(screen.getByText("MIT")).toBeTruthy();
});

test("a comparison with a version that is gone says so and can be closed", async () => {
  routes[`${SKILL}/diff`] = () => problem(404, "not_found", "main/hello has no version 9");
  show("#/catalog/main/hello?tab=versions&from=9&to=2");
  expect((await screen.findByRole("alert")).textContent).toContain("main/hello has no version 9");
  expect(screen.getByRole<HTMLSelectElement>("combobox", { name: "From version" }).value).toBe("9");
  fireEvent.click(screen.getByRole("link", { name: "Close" }));
  await vi.waitFor(() => expect(screen.queryByRole("combobox")).toBeNull());
});

test("a deleted skill is restored once that was confirmed", async () => {
  routes[SKILL] = () => data(detail({ version: null, status: "inactive", deleted_version: 2 }));
  takes(`${SKILL}/restore`);
  show("#/catalog/main/hello");
  fireEvent.click(await screen.findByRole("button", { name: "Restore" }));
  expect(asked).toEqual([]);
  routes[SKILL] = () => data(detail());
  fireEvent.click(screen.getByRole("button", { name: "Restore v2" }));
  await vi.waitFor(() => expect(screen.queryByText(/no agent gets it/)).toBeNull());
  expect(asked).toEqual([[`${SKILL}/restore`, {}]]);
});

test("a skill that nothing has called has no usage", async () => {
  routes[`${SKILL}/usage`] = () => data({ versions: [] });
  show("#/catalog/main/hello?tab=usage");
  expect(await screen.findByText("Nothing has called main/hello yet")).toBeTruthy();
});

test("counters outlive the log of calls", async () => {
  const counted = { version: 2, calls: 1200, failures: 7, last_at: "2026-11-01T10:00:00.000Z" };
  routes[`${SKILL}/usage`] = () => data({ versions: [counted] });
  routes[`${SKILL}/logs`] = () => data({ items: [], next_cursor: null });
  show("#/catalog/main/hello?tab=usage");
  expect(await screen.findByText("No call is in the log any more")).toBeTruthy();
  expect(screen.getByRole("row", { name: /v2 1,200 7/ })).toBeTruthy();
});
