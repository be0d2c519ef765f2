import { useQuery } from "@tanstack/react-query";
import type { FileChange, SkillDiff } from "../../api/types";
import { hrefOf, navigate } from "../../hooks/useRoute";
import { useServices } from "../../hooks/useServices";
import { Badge, type Tone } from "../../ui/badges";
import { plural } from "../../ui/format";
import { Empty, QueryView } from "../../ui/states";

interface ComparisonProps {
  id: string;
  /** Numbers of the versions there are to choose from, newest first. */
  versions: number[];
  from: number;
  to: number;
}

/** What differs between two versions. Which ones is in the address, so it can be shared. */
export function Comparison({ id, versions, from, to }: ComparisonProps) {
  const { queries } = useServices();
  const query = useQuery(queries.diff(id, from, to));
  const path = ["catalog", ...id.split("/")];
  const show = (pair: { from: number; to: number }) =>
    navigate(hrefOf(path, { tab: "versions", from: String(pair.from), to: String(pair.to) }), {
      replace: true,
    });
  return (
    <section className="comparison" aria-label={`From v${from} to v${to}`}>
      <header className="comparison-head">
        <VersionSelect
          label="From"
          value={from}
          versions={versions}
          onChange={(chosen) => show({ from: chosen, to })}
        />
        <VersionSelect
          label="To"
          value={to}
          versions={versions}
          onChange={(chosen) => show({ from, to: chosen })}
        />
        <span className="spacer" />
        <a className="button" href={hrefOf(path, { tab: "versions" })}>
          Close
        </a>
      </header>
      <QueryView
        query={query}
        isEmpty={(diff) => diff.files.length === 0 && diff.frontmatter.length === 0}
        empty={<Empty title={`v${from} and v${to} hold the same`} />}
      >
        {(diff) => <Differences diff={diff} />}
      </QueryView>
    </section>
  );
}

interface VersionSelectProps {
  label: string;
  value: number;
  versions: number[];
  onChange: (version: number) => void;
}

function VersionSelect({ label, value, versions, onChange }: VersionSelectProps) {
  return (
    <span className="version-select">
      {label}
      <select
        aria-label={`${label} version`}
        value={value}
        onChange={(change) => onChange(Number(change.target.value))}
      >
        {(versions.includes(value) ? versions : [value, ...versions]).map((version) => (
          <option key={version} value={version}>
            v{version}
          </option>
        ))}
      </select>
    </span>
  );
}

function Differences({ diff }: { diff: SkillDiff }) {
  return (
    <>
      <p className="muted">
        {plural(diff.files.length, "file")} {diff.files.length === 1 ? "differs" : "differ"}.
      </p>
      {diff.frontmatter.length > 0 && (
        <dl className="members">
          {diff.frontmatter.map((member) => (
            <div key={member.key}>
              <dt>{member.key}</dt>
              <dd>
                <del>{textOf(member.from)}</del> <ins>{textOf(member.to)}</ins>
              </dd>
            </div>
          ))}
        </dl>
      )}
      {diff.files.map((file) => (
        <details key={file.path} className="changed-file" open>
          <summary>
            <Badge tone={TONES[file.change]}>{file.change}</Badge> <code>{file.path}</code>
          </summary>
          <FileDifference file={file} />
        </details>
      ))}
    </>
  );
}

const TONES: Record<FileChange["change"], Tone> = { added: "ok", removed: "bad", changed: "warn" };

function textOf(value: unknown): string {
  if (value === null || value === undefined) return "none";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function FileDifference({ file }: { file: FileChange }) {
  if (file.binary) return <p className="muted">Not text.</p>;
  if (file.too_large) return <p className="muted">Too large to compare line by line.</p>;
  return (
    <pre className="source diff">
      {linesOf(file.diff ?? "").map(({ key, text, tone }) => (
        <span key={key} className={tone}>
          {text}
          {"\n"}
        </span>
      ))}
    </pre>
  );
}

/** Lines of a unified diff without its two headings, which repeat the path. */
function linesOf(diff: string): { key: string; text: string; tone: string | undefined }[] {
  return diff
    .replace(/\n$/, "")
    .split("\n")
    .slice(2)
    .map((text, at) => ({ key: `line-${at}`, text, tone: LINE_TONES[text[0] ?? ""] }));
}

const LINE_TONES: Record<string, string> = { "+": "line-added", "-": "line-removed", "@": "line-place" };
