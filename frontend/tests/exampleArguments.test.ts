import { expect, test } from "vitest";
import { exampleArguments } from "../src/features/catalog/exampleArguments";

test("required properties are filled with defaults, examples, enums or a value of their type", () => {
  const schema = {
    type: "object",
    required: ["path", "mode", "limit", "deep", "rows"],
    properties: {
      path: { type: "string", examples: ["a.csv"] },
      mode: { enum: ["fast", "exact"] },
      limit: { type: "integer", default: 5 },
      deep: { type: "object", properties: { flag: { type: "boolean" } } },
      rows: { type: "array" },
      optional: { type: "string" },
    },
  };
  expect(exampleArguments(schema)).toEqual({
    path: "a.csv",
    mode: "fast",
    limit: 5,
    deep: { flag: false },
    rows: [],
  });
});

test("a schema that requires nothing offers all that it names", () => {
  expect(
    exampleArguments({
      properties: { a: { type: "number" }, b: { type: "string" }, c: { type: "string", minLength: 1 } },
    }),
  ).toEqual({
    a: 0,
    b: "",
    c: "text",
  });
});

test("a schema that is not an object gives no arguments", () => {
  expect(exampleArguments({ type: "string" })).toEqual({});
});
