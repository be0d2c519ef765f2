import type { AuditFilter, AuditRecord, JsonObject } from "../../api/types";

const FILTERS = ["skill", "by", "kind", "since", "until"] as const;
const SKILL_SUBJECT = /^(?:skill|tools|reloads):([^/\s]+\/[^/\s]+)$/;

/** What each kind of change is called here; the filter offers these kinds. */
const WORDS: Record<string, (data: JsonObject) => string> = {
  "skill.published": (data) =>
    `published ${version(data)}${data.active_version === data.version ? "" : " as a draft"}`,
  "skill.activated": (data) => `activated ${version(data)}`,
  "skill.deleted": (data) => `deleted; ${version(data)} was active`,
  "skill.restored": (data) => `restored ${version(data)}`,
  "skill.quarantined": (data) => `quarantined ${version(data)}`,
  "skill.pinned": (data) => `pinned ${version(data)}`,
  "skill.unpinned": (data) => `unpinned ${version(data)}`,
  "skill.pruned": (data) => `removed ${list(data.versions, "v") || "versions"}`,
  "skill.removed": () => "removed with all versions",
  "skill.adopted": () => "taken over from another database",
  "tools.changed": (data) => `tools are now ${list(data.tools) || "none"}`,
  "tools.ranked": () => "ranked the tools by use",
  "solution.added": () => "added a solution",
  "incident.marked": (data) => `marked as ${data.level}`,
  "reload.folder": (data) => `read the folders again: ${data.changed} changed`,
  "reload.skill": (data) => `read its package again: ${data.changed} changed`,
  "cache.invalidated": (data) => `forgot ${data.invalidated} cached`,
  "run.working": () => "run is working",
  "run.input_required": () => "run asks for input",
  "run.completed": () => "run completed",
  "run.failed": () => "run failed",
  "run.cancelled": () => "run cancelled",
};

export const KINDS = Object.keys(WORDS);

/** Who acts without being a principal, as docs/operations.md says. */
const ACTORS: Record<string, string> = {
  watcher: "a saved file",
  retention: "gone by age",
  migration: "copied from another storage",
};

/** What a change is about that is about no single thing. */
const WHOLES: Record<string, string> = { reloads: "all skills", tools: "all tools", runs: "a run" };

function version(data: JsonObject): string {
  return `v${data.version}`;
}

function list(values: unknown, before = ""): string {
  return Array.isArray(values) ? values.map((value) => before + value).join(", ") : "";
}

/** A kind that is not known here stands for itself. */
export function whatOf({ kind, data }: AuditRecord): string {
  return WORDS[kind]?.(data) ?? labelOf(kind);
}

/** `run.input_required` as "run input required". */
export function labelOf(kind: string): string {
  return kind.replace(/[._]/g, " ");
}

/** Who did it, with what that means where it is no principal's name. */
export function whoOf({ by, topic }: AuditRecord): { name: string; meaning: string } {
  if (by) return { name: by, meaning: ACTORS[by] ?? "" };
  return topic === "runs"
    ? { name: "not told", meaning: "only its principal may know" }
    : { name: "the service", meaning: "nobody asked for it" };
}

/** The skill that a record is about; null for what is about none. */
export function skillOf(subject: string): string | null {
  return SKILL_SUBJECT.exec(subject)?.[1] ?? null;
}

/** The subject for people where it is no skill: `incident:ab12` as "incident ab12". */
export function subjectOf(subject: string): string {
  return WHOLES[subject] ?? subject.replace(":", " ");
}

/** From the address, or from fields of which some may be empty. */
export function filterOf(value: (name: (typeof FILTERS)[number]) => string | null | undefined): AuditFilter {
  return Object.fromEntries(FILTERS.map((name) => [name, value(name)]).filter(([, given]) => given));
}

/** A field's local time as a UTC stamp; empty for none. */
export function stampOf(local: string): string {
  const at = new Date(local);
  return Number.isNaN(at.getTime()) ? "" : at.toISOString();
}

/** A stamp as its field takes it, to the minute; empty for what is no stamp. */
export function localOf(stamp = ""): string {
  const at = new Date(stamp);
  if (!/^\d{4}-/.test(stamp) || Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
