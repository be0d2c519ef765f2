import { beforeEach, expect, test } from "vitest";
import { GapProof } from "../src/live/gapProof";
import { seqOf } from "../src/live/position";
import { eventId } from "./fakes";

let proof: GapProof;

beforeEach(() => {
  proof = new GapProof(4);
  proof.reanchor(eventId(10));
});

test("an event whose predecessor lies at or before the anchor applies", () => {
  expect(proof.check(eventId(11), eventId(10))).toBe("apply");
  expect(proof.check(eventId(14), eventId(3))).toBe("apply");
  expect(proof.check(eventId(15), "")).toBe("apply");
});

test("the same event a second time is a duplicate", () => {
  proof.check(eventId(11), eventId(10));
  expect(proof.check(eventId(11), eventId(10))).toBe("duplicate");
  expect(proof.check(eventId(9), eventId(8))).toBe("duplicate");
});

test("a predecessor that never came is a gap, even when another stream moved past it", () => {
  expect(proof.check(eventId(12), eventId(10))).toBe("apply");
  expect(proof.check(eventId(13), eventId(11))).toBe("gap");
});

test("an id of another epoch is not compared by number", () => {
  expect(proof.check(eventId(11, "e2"), eventId(10, "e2"))).toBe("epoch");
});

test("forgetting old ids raises the anchor instead of inventing gaps", () => {
  for (let seq = 11; seq < 30; seq += 1) expect(proof.check(eventId(seq), eventId(seq - 1))).toBe("apply");
  expect(proof.check(eventId(31), eventId(12))).toBe("apply");
});

test("before the first anchor everything applies", () => {
  expect(new GapProof().check(eventId(40), eventId(39))).toBe("apply");
});

test.each([
  ["a-b-17-0123abcd", 17],
  ["17", 17],
  [17, 17],
  ["", null],
  ["nonsense", null],
])("the seq of %s is %s", (position, seq) => {
  expect(seqOf(position)).toBe(seq);
});
