export type Grade = "strict" | "lenient" | "quarantined";
export type Status = "draft" | "active" | "inactive" | "quarantined";
export type Severity = "error" | "warning" | "info";
/** `off` is a check of something that is not configured; the whole is never `off`. */
export type Health = "ok" | "degraded" | "down" | "off";

export type JsonObject = { [name: string]: unknown };

export interface FileEntry {
  path: string;
  sha256: string;
  size: number;
}

export interface Diagnostic {
  severity: Severity;
  message: string;
  path?: string;
  line?: number | null;
  hint?: string;
}

/** The members from the active version are null, and `description` is empty, while there is none. */
export interface SkillSummary {
  id: string;
  owner: string;
  name: string;
  description: string;
  version: number | null;
  digest: string | null;
  grade: Grade | null;
  status: Status;
  seq: number;
  updated_at: string | null;
}

export interface SkillPage {
  items: SkillSummary[];
  next_cursor: string | null;
  revision: string | number;
}

export interface ToolSpec {
  /** The callable name, as in `POST /tools/{tool}/call`. */
  name: string;
  title?: string | null;
  description: string;
  inputSchema: JsonObject;
  outputSchema?: JsonObject | null;
}

export interface SkillDetail extends Omit<SkillSummary, "updated_at"> {
  frontmatter: JsonObject;
  manifest: FileEntry[];
  diagnostics: Diagnostic[];
  tools: ToolSpec[];
  /** The version that was active when the skill was deleted; null while it is not. */
  deleted_version: number | null;
}

export interface SkillVersion {
  version: number;
  digest: string;
  grade: Grade;
  created_at: string;
  created_by: string;
  active: boolean;
  /** Retention leaves it alone. */
  pinned: boolean;
  manifest: FileEntry[];
}

/** What became of a file, with its unified diff where both sides are text and not too large. */
export interface FileChange {
  path: string;
  change: "added" | "removed" | "changed";
  diff?: string;
  binary?: boolean;
  too_large?: boolean;
}

export interface SkillDiff {
  files: FileChange[];
  /** Members of the frontmatter that differ; null where there is none. */
  frontmatter: { key: string; from: unknown; to: unknown }[];
}

/** Counted since the skill was first called. */
export interface SkillUsage {
  versions: { version: number; calls: number; failures: number; last_at: string }[];
}

export interface WriteAnswer {
  id: string;
  seq: number;
}

export interface RollbackAnswer extends WriteAnswer {
  version: number;
  digest: string;
  changed: boolean;
}

export interface ToolCallAnswer {
  result: unknown;
  logs: string | string[];
  skill: string;
  version: number;
  digest: string;
  warm: boolean;
  worker_pid: number | null;
  duration_ms: number;
}

interface SearchHit {
  id: string;
  description: string;
  version: number;
  digest: string;
  score: number;
}

export interface SearchAnswer {
  items: SearchHit[];
  mode: string;
  index_seq: number;
  tokens: number;
  tokens_saved: number;
}

export interface Invocation {
  id: string;
  at: string;
  caller: string;
  session: string;
  transport: string;
  target: string;
  skill_id: string;
  version: number;
  digest: string;
  ok: boolean;
  code: string;
  duration_ms: number;
  arguments: string;
}

export interface InvocationPage {
  items: Invocation[];
  next_cursor: string | null;
}

export interface SourcePath {
  source: string;
  path: string;
  skill_id: string | null;
  digest: string;
  served: boolean;
  diagnostics: Diagnostic[];
}

export interface Change {
  id: string;
  seq: number;
  topic: string;
  kind: string;
  at: string;
  data: JsonObject;
}

export interface ChangePage {
  items: Change[];
  position: string | number;
}

/** A change, sealed: what was done to `subject`, by whom, chained by `prev` to the record before. */
export interface AuditRecord {
  seq: number;
  at: string;
  topic: string;
  kind: string;
  subject: string;
  /** Empty where nobody did it, or only the principal may know. */
  by: string;
  data: JsonObject;
  sealed_at: string;
  /** Empty without a key. */
  key_id: string;
  prev: string;
  hash: string;
}

export interface AuditPage {
  items: AuditRecord[];
  next_cursor: string | null;
}

/** The newest record; all but `lag`, which counts changes that are not sealed yet, are null before the first. */
export interface AuditHead {
  seq: number | null;
  hash: string | null;
  sealed_at: string | null;
  keyed: boolean | null;
  lag: number;
}

/** What is asked for, as in the address of the screen; times are UTC stamps. */
export type AuditFilter = Partial<Record<"skill" | "by" | "kind" | "since" | "until", string>>;

export interface CacheStats {
  l1: {
    entries: number;
    entries_max: number;
    bytes: number;
    hits: number;
    misses: number;
    /** null before the first read. */
    hit_rate: number | null;
  };
  l2: { state: "on" | "off" | "open"; detail: string; hits: number; misses: number; errors: number };
  loads: number;
  refused: number;
}

interface WorkerState {
  pid: number;
  key: string;
  calls: number;
  rss_bytes: number;
}

export interface ServerStatus {
  version: string;
  replica: string;
  started_at: string;
  uptime_s: number;
  position: string | number;
  /** Open streams by transport. */
  subscribers: Record<string, number>;
  notices: string[];
  workers: WorkerState[];
  search: {
    documents: number;
    vectors: number;
    model: string;
    mode: string;
    index_seq: number;
    p50_ms: number | null;
    p95_ms: number | null;
    p99_ms: number | null;
  };
}

export interface HealthReport {
  status: Health;
  checks: Record<string, { status: Health; detail: string }>;
  notices: string[];
}
