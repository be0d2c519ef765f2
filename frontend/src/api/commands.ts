import { type ApiClient, segments } from "./client";
import type { RollbackAnswer, ToolCallAnswer, WriteAnswer } from "./types";

/**
 * Something a person asks the server to do.
 *
 * `method` is its name on the live socket, where an answer costs no new request; null for what goes
 * over REST alone.
 */
export interface Command<P extends object, R> {
  method: string | null;
  rest: (api: ApiClient, params: P, timeoutMs: number) => Promise<R>;
  timeoutMs: number;
}

export const callTool: Command<{ tool: string; arguments: object }, ToolCallAnswer> = {
  method: "call_tool",
  rest: (api, params, timeoutMs) =>
    api.post(`/tools/${encodeURIComponent(params.tool)}/call`, { arguments: params.arguments }, timeoutMs),
  // A tool may run for as long as its own limit allows; the server ends it, not this page.
  timeoutMs: 120_000,
};

export const rollback: Command<{ id: string; version: number }, RollbackAnswer> = {
  method: null,
  rest: (api, params, timeoutMs) =>
    api.post(`/skills/${segments(params.id)}/rollback`, { version: params.version }, timeoutMs),
  timeoutMs: 20_000,
};

export const pin: Command<{ id: string; version: number; pinned: boolean }, WriteAnswer> = {
  method: null,
  rest: (api, { id, version, pinned }, timeoutMs) =>
    api.post(`/skills/${segments(id)}/pin`, { version, pinned }, timeoutMs),
  timeoutMs: 20_000,
};

/** Puts a deleted skill back in service with the version that was active. */
export const restore: Command<{ id: string }, WriteAnswer> = {
  method: null,
  rest: (api, { id }, timeoutMs) => api.post(`/skills/${segments(id)}/restore`, {}, timeoutMs),
  timeoutMs: 20_000,
};
