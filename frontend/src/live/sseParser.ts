export interface SseMessage {
  /** "message" where the server named none. */
  event: string;
  data: string;
  id: string;
}

/**
 * Turns the text of an event stream into messages, as the HTML standard's "interpreting an event
 * stream" has it. A block without data is no message, but it is the server's heartbeat: `onIdle` gets
 * the last id, which EventSource keeps to itself, and with it the difference between quiet and dead.
 */
export class SseParser {
  private buffer = "";
  private started = false;
  private event = "";
  private data: string[] = [];
  private id = "";

  constructor(
    private readonly onMessage: (message: SseMessage) => void,
    private readonly onIdle: (id: string) => void = () => {},
    private readonly onRetry: (delayMs: number) => void = () => {},
  ) {}

  feed(text: string): void {
    this.buffer += text;
    if (!this.started && this.buffer.length > 0) {
      this.started = true;
      if (this.buffer.startsWith("\uFEFF")) this.buffer = this.buffer.slice(1);
    }
    for (;;) {
      const match = /\r\n|\n|\r/.exec(this.buffer);
      // A CR at the very end may be the first half of CRLF; the next chunk tells.
      if (!match || (match[0] === "\r" && match.index === this.buffer.length - 1)) return;
      const line = this.buffer.slice(0, match.index);
      this.buffer = this.buffer.slice(match.index + match[0].length);
      this.line(line);
    }
  }

  private line(line: string): void {
    if (line === "") this.dispatch();
    else if (!line.startsWith(":")) this.field(line);
  }

  private field(line: string): void {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.event = value;
    else if (field === "data") this.data.push(value);
    else if (field === "id" && !value.includes("\0")) this.id = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.onRetry(Number(value));
  }

  private dispatch(): void {
    const { event, data } = this;
    this.event = "";
    this.data = [];
    if (data.length > 0) this.onMessage({ event: event || "message", data: data.join("\n"), id: this.id });
    else this.onIdle(this.id);
  }
}

/** Feeds a body through a parser until it ends. Rejects when the network does. */
export async function readMessages(
  body: ReadableStream<Uint8Array>,
  onMessage: (message: SseMessage) => void,
  onIdle?: (id: string) => void,
  onRetry?: (delayMs: number) => void,
): Promise<void> {
  const parser = new SseParser(onMessage, onIdle, onRetry);
  const reader = body.getReader();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    parser.feed(decoder.decode(value, { stream: true }));
  }
}
