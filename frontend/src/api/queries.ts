import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { seqOf } from "../live/position";
import { type ApiClient, segments } from "./client";
import type {
  AuditFilter,
  AuditHead,
  AuditPage,
  CacheStats,
  Change,
  ChangePage,
  HealthReport,
  InvocationPage,
  SearchAnswer,
  ServerStatus,
  SkillDetail,
  SkillDiff,
  SkillPage,
  SkillSummary,
  SkillUsage,
  SkillVersion,
  SourcePath,
} from "./types";

/** Every query key there is; `live/eventEffects.ts` names them too. */
export const keys = {
  skills: ["skills"] as const,
  skill: (id: string) => ["skill", id] as const,
  versions: (id: string) => ["skill", id, "versions"] as const,
  diff: (id: string, from: number, to: number) => ["diff", id, from, to] as const,
  file: (id: string, version: number, path: string) => ["file", id, version, path] as const,
  search: (query: string) => ["search", query] as const,
  searches: ["search"] as const,
  invocations: ["invocations"] as const,
  invocationsOf: (skill: string) => ["invocations", skill] as const,
  usage: (id: string) => ["invocations", id, "usage"] as const,
  calls: (id: string) => ["invocations", id, "calls"] as const,
  sources: ["sources"] as const,
  changes: ["changes"] as const,
  audit: ["audit"] as const,
  auditHead: ["audit", "head"] as const,
  auditRecords: ["audit", "records"] as const,
  cache: ["cache"] as const,
  status: ["status"] as const,
  health: ["health"] as const,
};

const SKILLS_PAGE = 200;
/** 25 pages of 200: beyond that the table says that it is cut, and the search screen is the way. */
const SKILLS_PAGES_MAX = 25;
export const CHANGES_SHOWN_MAX = 300;
const INVOCATIONS_PAGE = 50;
/** The largest page that the server gives. */
export const CALLS_SHOWN_MAX = 500;
const INVOCATION_PAGES_MAX = 20;
const AUDIT_PAGE = 50;
/** All of them are read again when a change is sealed. */
const AUDIT_PAGES_MAX = 20;
/** Nothing announces that a change was sealed; it takes about half of this. */
const SEALING_MS = 1000;
const SEARCH_LIMIT = 20;
/** Larger files are offered by size only: a browser pane is no place for them. */
export const FILE_SHOWN_BYTES_MAX = 256 * 1024;

export interface SkillList {
  items: SkillSummary[];
  isCut: boolean;
}

async function allSkills(api: ApiClient, signal: AbortSignal): Promise<SkillList> {
  const items: SkillSummary[] = [];
  let cursor: string | null = null;
  for (let page = 0; page < SKILLS_PAGES_MAX; page += 1) {
    const answer: SkillPage = await api.get("/skills", { limit: SKILLS_PAGE, cursor }, signal);
    items.push(...answer.items);
    cursor = answer.next_cursor;
    if (!cursor) break;
  }
  return { items, isCut: Boolean(cursor) };
}

/** The newest changes, newest first; the log itself is read forwards from a position. */
async function latestChanges(api: ApiClient, signal: AbortSignal): Promise<Change[]> {
  const { position } = await api.get<ServerStatus>("/status", {}, signal);
  const after = Math.max(0, (seqOf(position) ?? 0) - CHANGES_SHOWN_MAX);
  const page = await api.get<ChangePage>("/changes", { after, limit: CHANGES_SHOWN_MAX }, signal);
  return page.items.toReversed();
}

export function queriesOf(api: ApiClient) {
  return {
    skills: () => queryOptions({ queryKey: keys.skills, queryFn: ({ signal }) => allSkills(api, signal) }),
    skill: (id: string) =>
      queryOptions({
        queryKey: keys.skill(id),
        queryFn: ({ signal }) => api.get<SkillDetail>(`/skills/${segments(id)}`, {}, signal),
      }),
    versions: (id: string) =>
      queryOptions({
        queryKey: keys.versions(id),
        queryFn: async ({ signal }) =>
          (await api.get<{ items: SkillVersion[] }>(`/skills/${segments(id)}/versions`, {}, signal)).items,
      }),
    /** Versions never change, so what differs between two does not either. */
    diff: (id: string, from: number, to: number) =>
      queryOptions({
        queryKey: keys.diff(id, from, to),
        queryFn: ({ signal }) => api.get<SkillDiff>(`/skills/${segments(id)}/diff`, { from, to }, signal),
        staleTime: Number.POSITIVE_INFINITY,
      }),
    file: (id: string, version: number, path: string) =>
      queryOptions({
        queryKey: keys.file(id, version, path),
        queryFn: ({ signal }) =>
          api.bytes(`/skills/${segments(id)}/files/${segments(path)}`, { version }, signal),
        staleTime: Number.POSITIVE_INFINITY,
      }),
    search: (query: string) =>
      queryOptions({
        queryKey: keys.search(query),
        queryFn: ({ signal }) =>
          api.ask<SearchAnswer>("/search", { method: "POST", body: { query, limit: SEARCH_LIMIT }, signal }),
        enabled: query !== "",
      }),
    invocations: (skill: string) =>
      infiniteQueryOptions({
        queryKey: keys.invocationsOf(skill),
        queryFn: ({ pageParam, signal }) =>
          api.get<InvocationPage>(
            "/invocations",
            { limit: INVOCATIONS_PAGE, before: pageParam, skill: skill || null },
            signal,
          ),
        initialPageParam: null as string | null,
        getNextPageParam: (last, pages) => (pages.length < INVOCATION_PAGES_MAX ? last.next_cursor : null),
      }),
    usage: (id: string) =>
      queryOptions({
        queryKey: keys.usage(id),
        queryFn: ({ signal }) => api.get<SkillUsage>(`/skills/${segments(id)}/usage`, {}, signal),
      }),
    /** The newest calls of a skill, newest first. */
    calls: (id: string) =>
      queryOptions({
        queryKey: keys.calls(id),
        queryFn: async ({ signal }) => {
          const limit = CALLS_SHOWN_MAX;
          return (await api.get<InvocationPage>(`/skills/${segments(id)}/logs`, { limit }, signal)).items;
        },
      }),
    sources: () =>
      queryOptions({
        queryKey: keys.sources,
        queryFn: async ({ signal }) => (await api.get<{ items: SourcePath[] }>("/sources", {}, signal)).items,
      }),
    changes: () =>
      queryOptions({ queryKey: keys.changes, queryFn: ({ signal }) => latestChanges(api, signal) }),
    auditHead: () =>
      queryOptions({
        queryKey: keys.auditHead,
        queryFn: ({ signal }) => api.get<AuditHead>("/audit/head", {}, signal),
        refetchInterval: ({ state }) => (state.data?.lag ? SEALING_MS : false),
      }),
    audit: (filter: AuditFilter) =>
      infiniteQueryOptions({
        queryKey: [...keys.auditRecords, filter],
        queryFn: ({ pageParam, signal }) =>
          api.get<AuditPage>("/audit", { ...filter, limit: AUDIT_PAGE, cursor: pageParam }, signal),
        initialPageParam: null as string | null,
        getNextPageParam: (last, pages) => (pages.length < AUDIT_PAGES_MAX ? last.next_cursor : null),
      }),
    cache: () =>
      queryOptions({
        queryKey: keys.cache,
        queryFn: ({ signal }) => api.get<CacheStats>("/cache/stats", {}, signal),
      }),
    status: () =>
      queryOptions({
        queryKey: keys.status,
        queryFn: ({ signal }) => api.get<ServerStatus>("/status", {}, signal),
      }),
    health: () =>
      queryOptions({ queryKey: keys.health, queryFn: ({ signal }) => api.health<HealthReport>(signal) }),
  };
}

export type Queries = ReturnType<typeof queriesOf>;
