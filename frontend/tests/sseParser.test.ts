import { expect, test } from "vitest";
import { SseParser } from "../src/live/sseParser";

function parse(...chunks: string[]) {
  const seen: unknown[] = [];
  const parser = new SseParser(
    ({ event, data, id }) => seen.push([event, data, id]),
    (id) => seen.push(`idle at ${id}`),
    (delayMs) => seen.push(`retry in ${delayMs}`),
  );
  for (const chunk of chunks) parser.feed(chunk);
  return seen;
}

// The byte streams are those of web-platform-tests, eventsource/format-*.
test.each<[string, string[], unknown[]]>([
  ["a plain message", ["data: x\n\n"], [["message", "x", ""]]],
  ["several data lines", ["data: a\ndata: b\n\n"], [["message", "a\nb", ""]]],
  ["CR, LF and CRLF mixed", ["data:a\rdata:b\r\ndata:c\n\r\n"], [["message", "a\nb\nc", ""]]],
  ["a CRLF cut in two", ["data:a\r", "\n\r", "\n"], [["message", "a", ""]]],
  ["a byte order mark", ["\uFEFFdata:x\n\n"], [["message", "x", ""]]],
  ["a second byte order mark", ["\uFEFF\uFEFFdata:x\n\n"], ["idle at "]],
  ["only one leading space", ["data:  x\n\n"], [["message", " x", ""]]],
  ["a field without a colon", ["data\n\n"], [["message", "", ""]]],
  ["an unknown field", ["datas:x\ndata:y\n\n"], [["message", "y", ""]]],
  ["a retry", ["retry: 300\nretry:x\nretry: 1.5\nretry: -1\nretry\n"], ["retry in 300"]],
  ["a named event", ["event: reset\nid: 7\ndata: {}\n\n"], [["reset", "{}", "7"]]],
  ["an event name without data", ["event: a\n\ndata:x\n\n"], ["idle at ", ["message", "x", ""]]],
  ["an id with NUL", ["id: a\0b\ndata:x\n\n"], [["message", "x", ""]]],
  [
    "an id that lasts",
    ["id: 1\ndata:x\n\ndata:y\n\n"],
    [
      ["message", "x", "1"],
      ["message", "y", "1"],
    ],
  ],
  ["a comment", [": beat\n\n"], ["idle at "]],
  ["a heartbeat with an id", [": beat\nid: 9\n\n"], ["idle at 9"]],
  ["a CRLF cut in two inside a block", ["data:a\r", "\ndata:b\n\n"], [["message", "a\nb", ""]]],
  ["an unfinished message", ["data:x\n"], []],
  ["a message in small pieces", [..."data: x\n\n"], [["message", "x", ""]]],
])("%s", (_, chunks, expected) => {
  expect(parse(...chunks)).toEqual(expected);
});
