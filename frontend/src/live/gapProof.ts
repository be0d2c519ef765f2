import { type Position, parsePosition } from "./position";

export type Verdict = "apply" | "duplicate" | "gap" | "epoch";

/**
 * Proves that no event of the subscribed streams was missed.
 *
 * Every event names the one before it on its own stream (`prev`). That one must have been seen, or
 * lie at or before the anchor: the position from which this client is known to be complete. Ids of
 * the last `seenMax` events are kept; forgetting one moves the anchor up to it, which can only hide
 * a gap that is older than all of them.
 */
export class GapProof {
  private readonly seen = new Set<string>();
  private anchor: Position | null = null;

  constructor(private readonly seenMax = 4096) {}

  /** From here on this client is complete: after a subscription, or a refetch of everything. */
  reanchor(position: string): void {
    this.seen.clear();
    this.anchor = parsePosition(position);
  }

  check(id: string, prev: string): Verdict {
    if (this.seen.has(id)) return "duplicate";
    const at = parsePosition(id);
    if (at && this.anchor) {
      if (at.epoch !== this.anchor.epoch) return "epoch";
      if (at.seq <= this.anchor.seq) return "duplicate";
      if (!this.isCovered(prev, this.anchor)) return "gap";
    }
    this.remember(id);
    return "apply";
  }

  private isCovered(prev: string, anchor: Position): boolean {
    if (prev === "" || this.seen.has(prev)) return true;
    const before = parsePosition(prev);
    return before !== null && before.epoch === anchor.epoch && before.seq <= anchor.seq;
  }

  private remember(id: string): void {
    this.seen.add(id);
    if (this.seen.size <= this.seenMax) return;
    const oldest = this.seen.values().next().value;
    if (oldest === undefined) return;
    this.seen.delete(oldest);
    this.anchor = parsePosition(oldest) ?? this.anchor;
  }
}
