import { expect, test } from "vitest";
import { historyOf, stepName } from "../src/features/catalog/callBuckets";

const NOW_MS = Date.parse("2026-11-20T12:00:30.000Z");

function call(at: string, code = "") {
  return { at, ok: code === "", code };
}

test("every call is in the bar of its time, by outcome", () => {
  const { buckets, stepMs, outcomes } = historyOf(
    [
      call("2026-11-20T12:00:10.000Z"),
      call("2026-11-20T12:00:05.000Z", "timeout"),
      call("2026-11-20T11:58:00.000Z", "timeout"),
      call("2026-11-20T11:58:59.999Z"),
      call("2026-11-20T11:57:59.999Z", "tool_failed"),
    ],
    NOW_MS,
  );
  expect(stepName(stepMs)).toBe("minute");
  expect(buckets.slice(-4).map(({ ok, failed }) => [ok, failed])).toEqual([
    [0, 1],
    [1, 1],
    [0, 0],
    [1, 1],
  ]);
  expect(outcomes).toEqual([
    ["ok", 2],
    ["timeout", 2],
    ["tool_failed", 1],
  ]);
});

test.each([
  ["2026-11-20T11:59:00.000Z", "minute"],
  ["2026-11-20T10:00:00.000Z", "5 minutes"],
  ["2026-11-20T04:00:00.000Z", "15 minutes"],
  ["2026-11-19T12:00:00.000Z", "hour"],
  ["2026-11-13T12:00:00.000Z", "6 hours"],
  ["2026-10-21T12:00:00.000Z", "day"],
])("calls since %s are shown by the %s", (first, step) => {
  const { buckets, stepMs } = historyOf([call(first)], NOW_MS);
  expect(stepName(stepMs)).toBe(step);
  expect(buckets.length).toBeGreaterThanOrEqual(24);
  expect(buckets.length).toBeLessThanOrEqual(40);
  expect(buckets.reduce((sum, { ok }) => sum + ok, 0)).toBe(1);
});

test("a clock that runs ahead of ours loses no call", () => {
  const { buckets } = historyOf([call("2026-11-20T12:03:00.000Z")], NOW_MS);
  expect(buckets.at(-1)?.ok).toBe(1);
});
