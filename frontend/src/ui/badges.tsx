import { type ReactNode, useEffect, useState } from "react";
import type { Grade, Health, Status } from "../api/types";
import { shortDigest } from "./format";
import { Icon } from "./icons";

export type Tone = "ok" | "warn" | "bad" | "info" | "quiet";

export function Badge({ tone, children, title }: { tone: Tone; children: string; title?: string }) {
  return (
    <span className={`badge badge-${tone}`} title={title}>
      {children}
    </span>
  );
}

const GRADES: Record<Grade, { tone: Tone; title: string }> = {
  strict: { tone: "ok", title: "Follows the Agent Skills specification" },
  lenient: { tone: "warn", title: "Served, with diagnostics" },
  quarantined: { tone: "bad", title: "Kept and shown, never served" },
};

export function GradeBadge({ grade }: { grade: Grade | null }) {
  if (grade === null) return null;
  const { tone, title } = GRADES[grade] ?? { tone: "quiet", title: "" };
  return (
    <Badge tone={tone} title={title}>
      {grade}
    </Badge>
  );
}

const STATUSES: Record<Status, Tone> = { active: "ok", draft: "info", inactive: "quiet", quarantined: "bad" };

export function StatusBadge({ status }: { status: Status }) {
  return <Badge tone={STATUSES[status] ?? "quiet"}>{status}</Badge>;
}

const HEALTHS: Record<Health, Tone> = { ok: "ok", degraded: "warn", down: "bad", off: "quiet" };

export function HealthBadge({ health }: { health: Health }) {
  return <Badge tone={HEALTHS[health] ?? "quiet"}>{health}</Badge>;
}

/** A skill that was only ever quarantined, or was deleted, has no active version. */
export function VersionTag({ version }: { version: number | null }) {
  return version === null ? (
    <span className="muted">no version</span>
  ) : (
    <span className="version">v{version}</span>
  );
}

export function ShortDigest({ digest }: { digest: string | null }) {
  return digest ? (
    <code className="digest" title={digest}>
      {shortDigest(digest)}
    </code>
  ) : (
    <span className="muted">none</span>
  );
}

const COPIED_MS = 1500;

/** The whole digest goes to the clipboard; its short form is what there is room for. */
export function DigestButton({ digest }: { digest: string }) {
  return (
    <CopyButton text={digest} label="Copy the digest">
      {shortDigest(digest)}
    </CopyButton>
  );
}

/** `text` goes to the clipboard; `children` are what of it is shown. */
export function CopyButton({ text, label, children }: { text: string; label: string; children: ReactNode }) {
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    if (!isCopied) return;
    const timer = setTimeout(() => setCopied(false), COPIED_MS);
    return () => clearTimeout(timer);
  }, [isCopied]);
  // Clipboard access can be refused; the text stays readable in the title then.
  const copy = () =>
    navigator.clipboard?.writeText(text).then(
      () => setCopied(true),
      () => setCopied(false),
    );
  return (
    <button type="button" className="digest digest-button" title={text} onClick={copy} aria-label={label}>
      {children}
      <Icon name={isCopied ? "check" : "copy"} />
    </button>
  );
}
