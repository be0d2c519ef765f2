import type { QueryClient, QueryKey } from "@tanstack/react-query";
import { CHANGES_SHOWN_MAX, keys, type SkillList } from "../api/queries";
import type { Change, Grade, SkillSummary, Status } from "../api/types";
import { seqOf } from "./position";
import type { LiveEvent } from "./transport";

interface Effect {
  /** Puts the event's own data in place; false when it does not suffice and the lists must be read again. */
  patch?: (client: QueryClient, event: LiveEvent) => boolean;
  /** Read again when `patch` could not. */
  unlessPatched?: QueryKey[];
  invalidate: (skillId: string) => QueryKey[];
}

/** What each kind of event makes of what has been read. A kind that is not here changes only the feed. */
const eventEffects: Record<string, Effect> = {
  "skill.published": {
    patch: patchActive,
    unlessPatched: [keys.skills],
    invalidate: (id) => [keys.skill(id), keys.searches, keys.sources],
  },
  "skill.activated": {
    patch: patchActive,
    unlessPatched: [keys.skills],
    invalidate: (id) => [keys.skill(id), keys.searches],
  },
  "tools.changed": { invalidate: (id) => [keys.skill(id)] },
  "skill.deleted": { invalidate: (id) => [keys.skills, keys.skill(id), keys.searches, keys.sources] },
  "skill.restored": { invalidate: (id) => [keys.skills, keys.skill(id), keys.searches, keys.sources] },
  "skill.removed": { invalidate: (id) => [keys.skills, keys.skill(id), keys.searches, keys.sources] },
  "skill.pinned": { invalidate: (id) => [keys.skill(id)] },
  "skill.unpinned": { invalidate: (id) => [keys.skill(id)] },
  "skill.pruned": { invalidate: (id) => [keys.skill(id)] },
  "skill.quarantined": { invalidate: (id) => [keys.skills, keys.skill(id), keys.searches, keys.sources] },
};

/** A state topic carries the whole new value of what its REST address answers. */
const stateTopics: Record<string, QueryKey> = {
  stats: keys.status,
  health: keys.health,
  cache: keys.cache,
};

/** What has no topic is read again at the pace of the server's heartbeat. */
export const heartbeatKeys: QueryKey[] = [keys.invocations, keys.audit];

/** Every key that a missed event could have changed: all but immutable file contents. */
export const resetKeys: QueryKey[] = [
  keys.skills,
  ["skill"],
  keys.searches,
  keys.sources,
  keys.changes,
  keys.status,
  keys.health,
  keys.cache,
  ...heartbeatKeys,
];

/** Patches the query cache at once and returns the keys to read again. */
export function applyEvent(client: QueryClient, event: LiveEvent): QueryKey[] {
  const stateKey = stateTopics[event.topic];
  if (stateKey) {
    // REST answers for one replica, too: those of the others are in `FleetStats`.
    if (event.state?.isOwn === false || event.kind.endsWith(".gone")) return [];
    client.setQueryData(stateKey, event.data);
    return [];
  }
  if (event.id !== "") appendToFeed(client, event);
  // Every change of the log is sealed, whatever its kind.
  const sealed: QueryKey[] = event.id !== "" ? [keys.auditHead] : [];
  const effect = eventEffects[event.kind];
  if (!effect) return sealed;
  const named = event.data.id ?? event.data.skill;
  const skillId = typeof named === "string" ? named : "";
  const isPatched = effect.patch?.(client, event) ?? false;
  return [...sealed, ...effect.invalidate(skillId), ...(isPatched ? [] : (effect.unlessPatched ?? []))];
}

function appendToFeed(client: QueryClient, event: LiveEvent): void {
  const change: Change = { ...event, seq: seqOf(event.id) ?? 0 };
  client.setQueryData<Change[]>(keys.changes, (known) => {
    if (!known || known.some((other) => other.id === change.id)) return known;
    return [change, ...known].slice(0, CHANGES_SHOWN_MAX);
  });
}

function patchActive(client: QueryClient, event: LiveEvent): boolean {
  const row = summaryOf(event);
  const list = client.getQueryData<SkillList>(keys.skills);
  if (!list) return true;
  // A draft leaves the active version what it was, and the event does not describe that one.
  if (!row || event.data.active_version !== row.version) return false;
  const known = list.items.find((item) => item.id === row.id);
  if (known && known.seq >= row.seq) return true;
  const others = list.items.filter((item) => item.id !== row.id);
  const items = [...others, row].sort((a, b) => (a.id < b.id ? -1 : 1));
  client.setQueryData<SkillList>(keys.skills, { ...list, items });
  return true;
}

function summaryOf(event: LiveEvent): SkillSummary | null {
  const { id, name, description, version, digest, grade, status } = event.data;
  const seq = seqOf(event.id);
  if (typeof id !== "string" || typeof version !== "number" || typeof digest !== "string" || seq === null)
    return null;
  if (typeof name !== "string" || typeof description !== "string") return null;
  return {
    id,
    owner: id.split("/", 1)[0] ?? "",
    name,
    description,
    version,
    digest,
    grade: grade as Grade,
    status: status as Status,
    seq,
    updated_at: event.at,
  };
}
