import type { SkillSummary } from "../src/api/types";
import type { SocketLike } from "../src/live/rpcClient";
import type { Connect, ConnectRequest, TransportListener } from "../src/live/transport";

export const hello: SkillSummary = {
  id: "main/hello",
  owner: "main",
  name: "hello",
  description: "Says hi",
  version: 1,
  digest: `sha256:${"a".repeat(64)}`,
  grade: "strict",
  status: "active",
  seq: 7,
  updated_at: "2026-11-20T10:00:00.000Z",
};

export class FakeSocket implements SocketLike {
  readyState = 0;
  bufferedAmount = 0;
  onopen: (() => void) | null = null;
  onmessage: ((message: { data: unknown }) => void) | null = null;
  onclose: ((close: { code: number; reason: string }) => void) | null = null;
  readonly sent: Record<string, unknown>[] = [];
  closedWith: number | undefined;

  constructor(readonly url: string) {}

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(code?: number): void {
    this.closedWith = code;
  }

  accept(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  deliver(message: unknown): void {
    this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) });
  }

  drop(code: number, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

/** One attempt of a transport, as the stream asked for it, to be played by the test. */
export interface Attempt extends TransportListener {
  request: ConnectRequest;
  isClosed: boolean;
}

export function fakeTransport(): { connect: Connect; attempts: Attempt[]; last: () => Attempt } {
  const attempts: Attempt[] = [];
  const connect: Connect = (request, listener) => {
    const attempt: Attempt = { ...listener, request, isClosed: false };
    attempts.push(attempt);
    return {
      close: () => {
        attempt.isClosed = true;
      },
    };
  };
  const last = () => {
    const attempt = attempts.at(-1);
    if (!attempt) throw new Error("no attempt was made");
    return attempt;
  };
  return { connect, attempts, last };
}

export function eventId(seq: number, epoch = "e1"): string {
  return `${epoch}-${seq}-${seq.toString(16).padStart(8, "0")}`;
}

export function published(seq: number, prev = eventId(seq - 1), data: Record<string, unknown> = {}) {
  return {
    id: eventId(seq),
    prev,
    topic: "skills",
    kind: "skill.published",
    at: "2026-11-21T10:00:00.000Z",
    data: {
      id: "main/hello",
      name: "hello",
      description: "Says hello",
      version: 2,
      active_version: 2,
      digest: `sha256:${"b".repeat(64)}`,
      grade: "strict",
      status: "active",
      by: "watch",
      ...data,
    },
  };
}
