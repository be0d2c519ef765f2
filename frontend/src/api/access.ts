const STORAGE_NAME = "skillwire.key";

/**
 * The API key of this tab, and whether the server has refused us for want of a good one.
 *
 * The key lives in sessionStorage, so it ends with the tab; where the browser forbids storage it
 * lives in memory until the next reload.
 */
export class Access {
  private keyNow: string | null;
  private refusedNow = false;
  private refusedKeyNow = false;
  private readonly watchers = new Set<() => void>();

  constructor(private readonly storage: Storage | null = tabStorage()) {
    this.keyNow = storage?.getItem(STORAGE_NAME) ?? null;
  }

  get key(): string | null {
    return this.keyNow;
  }

  get isRefused(): boolean {
    return this.refusedNow;
  }

  /** True after a key was refused, as opposed to having had none to offer. */
  get hasRefusedKey(): boolean {
    return this.refusedKeyNow;
  }

  watch(onChange: () => void): () => void {
    this.watchers.add(onChange);
    return () => this.watchers.delete(onChange);
  }

  offer(key: string): void {
    this.keyNow = key;
    this.storage?.setItem(STORAGE_NAME, key);
    this.settle(false);
  }

  refuse(): void {
    if (this.keyNow !== null) this.refusedKeyNow = true;
    this.keyNow = null;
    this.storage?.removeItem(STORAGE_NAME);
    this.settle(true);
  }

  private settle(isRefused: boolean): void {
    if (this.refusedNow === isRefused) return;
    this.refusedNow = isRefused;
    for (const watcher of [...this.watchers]) watcher();
  }
}

function tabStorage(): Storage | null {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
}
