import { isRecord } from "../json";
import { readMessages, type SseMessage } from "../live/sseParser";
import type { Access } from "./access";

const TIMEOUT_MS = 20_000;

/** A refusal by the server (`code` is stable, `detail` is for people), or `network` when there was none. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly title: string,
    readonly detail: string,
    readonly requestId: string = "",
  ) {
    super(detail || title);
    this.name = "ApiError";
  }
}

export interface Answer<T> {
  data: T;
  durationMs: number | null;
  isCacheHit: boolean;
}

interface Request {
  method?: "GET" | "POST";
  query?: Record<string, string | number | null | undefined> | undefined;
  body?: unknown;
  /** null for a stream, which may take as long as it likes. */
  timeoutMs?: number | null;
  signal?: AbortSignal | undefined;
}

/** The REST interface of the origin that served this page. Every method rejects with `ApiError`, or an abort. */
export class ApiClient {
  constructor(private readonly access: Access) {}

  async get<T>(path: string, query: Request["query"] = {}, signal?: AbortSignal): Promise<T> {
    return (await this.ask<T>(path, { query, signal })).data;
  }

  async post<T>(path: string, body: unknown, timeoutMs = TIMEOUT_MS): Promise<T> {
    return (await this.ask<T>(path, { method: "POST", body, timeoutMs })).data;
  }

  /** The envelope's data with what the envelope says about its making. */
  async ask<T>(path: string, request: Request = {}): Promise<Answer<T>> {
    const response = await this.send(`/api/v1${path}`, request);
    const envelope: unknown = await response.json();
    const members = isRecord(envelope) ? envelope : {};
    const performance = isRecord(members.performance) ? members.performance : {};
    return {
      data: members.data as T,
      durationMs: typeof performance.duration_ms === "number" ? performance.duration_ms : null,
      isCacheHit: performance.cache_hit === true,
    };
  }

  /** `/health` has no envelope, and its body is as good with 503 as with 200. */
  async health<T>(signal?: AbortSignal): Promise<T> {
    const response = await this.send("/health", { signal }, (status) => status === 503);
    return (await response.json()) as T;
  }

  async bytes(path: string, query: Request["query"], signal?: AbortSignal): Promise<ArrayBuffer> {
    return (await this.send(`/api/v1${path}`, { query, signal })).arrayBuffer();
  }

  /**
   * Server-sent events of a GET, until `signal` aborts. Resolves when the server ends the stream.
   * Fetch and not EventSource, which cannot send the key.
   */
  async follow(path: string, signal: AbortSignal, onMessage: (message: SseMessage) => void): Promise<void> {
    const response = await this.send(`/api/v1${path}`, { signal, timeoutMs: null });
    if (response.body) await readMessages(response.body, onMessage);
  }

  /** A short-lived stand-in for the key in a URL; null when this tab has no key to stand in for. */
  async ticket(): Promise<string | null> {
    if (this.access.key === null) return null;
    return (await this.post<{ ticket: string }>("/tickets", {})).ticket;
  }

  private async send(
    path: string,
    { method = "GET", query, body, timeoutMs = TIMEOUT_MS, signal }: Request,
    accepts: (status: number) => boolean = () => false,
  ): Promise<Response> {
    const headers: Record<string, string> = { Accept: "application/json" };
    const key = this.access.key;
    if (key !== null) headers.Authorization = `Bearer ${key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const deadline = timeoutMs === null ? null : AbortSignal.timeout(timeoutMs);
    const signals = [signal, deadline].filter((each) => each !== undefined && each !== null);
    let response: Response;
    try {
      response = await fetch(path + queryString(query), {
        method,
        headers,
        signal: AbortSignal.any(signals),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      const detail = deadline?.aborted
        ? `The server gave no answer within ${(timeoutMs ?? 0) / 1000} s.`
        : "The server cannot be reached.";
      throw new ApiError(0, "network", "No answer", detail);
    }
    if (response.ok || accepts(response.status)) return response;
    // Only the key that was sent has been refused; one offered meanwhile has yet to be tried.
    if (response.status === 401 && this.access.key === key) this.access.refuse();
    throw await problem(response);
  }
}

async function problem(response: Response): Promise<ApiError> {
  const body: unknown = await response.json().catch(() => null);
  const members = isRecord(body) ? body : {};
  const text = (name: string) => (typeof members[name] === "string" ? members[name] : "");
  return new ApiError(
    response.status,
    text("code") || `http_${response.status}`,
    text("title") || `HTTP ${response.status}`,
    text("detail") || text("message"),
    text("request_id") || (response.headers.get("X-Request-ID") ?? ""),
  );
}

function queryString(query: Request["query"]): string {
  const pairs = Object.entries(query ?? {}).flatMap(([name, value]) =>
    value === null || value === undefined ? [] : [[name, String(value)]],
  );
  return pairs.length > 0 ? `?${new URLSearchParams(pairs)}` : "";
}

/** `owner/name` and file paths as URL segments, each escaped on its own. */
export function segments(path: string): string {
  return path.split("/").map(encodeURIComponent).join("/");
}
