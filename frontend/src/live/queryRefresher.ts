import { hashKey, type QueryClient, type QueryKey } from "@tanstack/react-query";

/** Long enough to join the events of one save, short enough to look immediate. */
const DELAY_MS = 80;

/** Reads queries again, once per burst: fifty skills published together are one refetch of each list. */
export class QueryRefresher {
  private readonly waiting = new Map<string, QueryKey>();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly client: QueryClient) {}

  request(queryKeys: readonly QueryKey[]): void {
    for (const key of queryKeys) this.waiting.set(hashKey(key), key);
    if (this.waiting.size > 0) this.timer ??= setTimeout(() => this.flush(), DELAY_MS);
  }

  close(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.waiting.clear();
  }

  private flush(): void {
    this.timer = undefined;
    const queryKeys = [...this.waiting.values()];
    this.waiting.clear();
    // A failed refetch is shown by the screen that needs it.
    for (const queryKey of queryKeys) void this.client.invalidateQueries({ queryKey });
  }
}
