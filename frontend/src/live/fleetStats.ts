import type { ServerStatus } from "../api/types";
import type { Coverage, LiveEvent } from "./transport";

export interface ReplicaStats {
  readonly replica: string;
  /** True for the replica that serves this connection. */
  readonly isOwn: boolean;
  readonly at: string;
  readonly stats: ServerStatus;
}

export interface FleetSnapshot {
  /** null until the first state has come. */
  readonly coverage: Coverage | null;
  /** In the order of their names. */
  readonly replicas: readonly ReplicaStats[];
}

const NOTHING: FleetSnapshot = { coverage: null, replicas: [] };

/** The latest `stats` of every replica that the connected one hears, as they come. */
export class FleetStats {
  private snapshotNow = NOTHING;
  private readonly watchers = new Set<() => void>();

  get snapshot(): FleetSnapshot {
    return this.snapshotNow;
  }

  /** Calls back after each change of `snapshot`; returns the way to stop. */
  watch(onChange: () => void): () => void {
    this.watchers.add(onChange);
    return () => this.watchers.delete(onChange);
  }

  /** Takes an event of the topic `stats`; others are ignored. */
  apply(event: LiveEvent): void {
    const { state, topic, kind, at, data } = event;
    if (topic !== "stats" || !state) return;
    const others = this.snapshotNow.replicas.filter(({ replica }) => replica !== state.key);
    const stats = data as unknown as ServerStatus;
    const replicas = kind.endsWith(".gone")
      ? others
      : [...others, { replica: state.key, isOwn: state.isOwn, at, stats }];
    this.update({
      coverage: state.coverage,
      replicas: replicas.sort((a, b) => (a.replica < b.replica ? -1 : 1)),
    });
  }

  /** After a reconnect: what still holds comes again, and another replica may be the own one now. */
  forget(): void {
    if (this.snapshotNow !== NOTHING) this.update(NOTHING);
  }

  private update(next: FleetSnapshot): void {
    this.snapshotNow = next;
    for (const watcher of [...this.watchers]) watcher();
  }
}
