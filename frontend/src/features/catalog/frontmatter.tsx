import type { JsonObject } from "../../api/types";

/** The author's own words, in the author's own order. */
export function Frontmatter({ values }: { values: JsonObject }) {
  const entries = Object.entries(values);
  if (entries.length === 0) return <p className="muted">SKILL.md has none.</p>;
  return (
    <dl className="pairs">
      {entries.map(([name, value]) => (
        <div key={name} className="pair">
          <dt>{name}</dt>
          <dd>{typeof value === "string" ? value : <code>{JSON.stringify(value, null, 1)}</code>}</dd>
        </div>
      ))}
    </dl>
  );
}
