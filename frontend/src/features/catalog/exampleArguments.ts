import type { JsonObject } from "../../api/types";
import { isRecord } from "../../json";

const DEPTH_MAX = 4;

/**
 * Arguments to start from: what the schema requires (or, where it requires nothing, all that it
 * names), filled with its own defaults and examples where it has them.
 */
export function exampleArguments(schema: JsonObject): JsonObject {
  const example = exampleOf(schema, 0);
  return isRecord(example) ? example : {};
}

function exampleOf(schema: unknown, depth: number): unknown {
  if (!isRecord(schema) || depth > DEPTH_MAX) return null;
  if ("default" in schema) return schema.default;
  if ("const" in schema) return schema.const;
  for (const offered of [schema.examples, schema.enum]) {
    if (Array.isArray(offered) && offered.length > 0) return offered[0];
  }
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (type === "object" || isRecord(schema.properties)) return exampleObject(schema, depth);
  if (type === "array") return [];
  if (type === "string") return typeof schema.minLength === "number" && schema.minLength > 0 ? "text" : "";
  if (type === "boolean") return false;
  if (type === "number" || type === "integer") return typeof schema.minimum === "number" ? schema.minimum : 0;
  return null;
}

function exampleObject(schema: JsonObject, depth: number): JsonObject {
  const properties = isRecord(schema.properties) ? schema.properties : {};
  const required = Array.isArray(schema.required)
    ? schema.required.filter((name) => typeof name === "string")
    : [];
  const names = required.length > 0 ? required : Object.keys(properties);
  return Object.fromEntries(names.map((name) => [name, exampleOf(properties[name], depth + 1)]));
}
