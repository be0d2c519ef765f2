import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { reconnects } from "../src/live/closeCodes";

const server = readFileSync("../notifier/close_codes.py", "utf8");

test.each([
  [3000, true],
  [3499, true],
  [3500, false],
  [3999, false],
  [4000, true],
  [4499, true],
  [4500, false],
  [4999, false],
  [1000, true],
  [1001, true],
  [1006, true],
  [1012, true],
  [1002, false],
  [1008, false],
  [5000, false],
])("a close with %i reconnects: %s", (code, expected) => {
  expect(reconnects(code)).toBe(expected);
});

test("the server's own codes are on the side of the table that the server puts them on", () => {
  const codes = [...server.matchAll(/CloseCode\((\d+),/g)].map((match) => Number(match[1]));
  expect(codes.length).toBeGreaterThan(3);
  for (const code of codes) expect([code, reconnects(code)]).toEqual([code, code % 1000 < 500]);
});

test("every protocol code after which the server expects us back brings us back", () => {
  const listed = /_STANDARD_RECONNECT = frozenset\(\{([\d, ]+)\}\)/.exec(server)?.[1] ?? "";
  const codes = listed.split(",").map(Number);
  expect(codes.length).toBeGreaterThan(3);
  for (const code of codes) expect([code, reconnects(code)]).toEqual([code, true]);
});
