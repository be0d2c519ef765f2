import { useQuery } from "@tanstack/react-query";
import type { SourcePath } from "../../api/types";
import { hrefOf } from "../../hooks/useRoute";
import { useServices } from "../../hooks/useServices";
import { Badge, ShortDigest } from "../../ui/badges";
import { Diagnostics } from "../../ui/diagnostics";
import { plural } from "../../ui/format";
import { Page, Panel } from "../../ui/page";
import { Empty, QueryView } from "../../ui/states";

export function SourcesScreen() {
  const { queries } = useServices();
  const query = useQuery(queries.sources());
  return (
    <Page
      title="Sources"
      lead="What each watched folder gives, what is not served, and why."
      updatedAt={query.dataUpdatedAt}
    >
      <QueryView
        query={query}
        rows={6}
        isEmpty={(paths) => paths.length === 0}
        empty={
          <div className="panel">
            <Empty title="No watched folder has given anything">
              Put a folder with a <code>SKILL.md</code> into the watched folder (the setting{" "}
              <code>skills_dir</code>).
            </Empty>
          </div>
        }
      >
        {(paths) =>
          bySource(paths).map(([source, items]) => <Source key={source} name={source} paths={items} />)
        }
      </QueryView>
    </Page>
  );
}

/** Sources in the server's order; in each, what needs attention first. */
function bySource(paths: SourcePath[]): [string, SourcePath[]][] {
  const groups = new Map<string, SourcePath[]>();
  for (const path of paths) groups.set(path.source, [...(groups.get(path.source) ?? []), path]);
  const urgency = (path: SourcePath) => (path.served ? (path.diagnostics.length > 0 ? 1 : 2) : 0);
  return [...groups].map(([source, items]) => [source, items.toSorted((a, b) => urgency(a) - urgency(b))]);
}

function Source({ name, paths }: { name: string; paths: SourcePath[] }) {
  const refused = paths.filter((path) => !path.served).length;
  return (
    <Panel
      title={name}
      aside={
        <>
          {plural(paths.length - refused, "path")} served
          {refused > 0 && <strong className="bad-text">, {refused} not served</strong>}
        </>
      }
    >
      <ul className="paths">
        {paths.map((path) => (
          <li key={path.path} className="path">
            <div className="path-line">
              <Badge tone={path.served ? (path.diagnostics.length > 0 ? "warn" : "ok") : "bad"}>
                {path.served ? "served" : "not served"}
              </Badge>
              <code className="path-name">{path.path}</code>
              {path.skill_id && (
                <a href={hrefOf(["catalog", ...path.skill_id.split("/")])}>{path.skill_id}</a>
              )}
              <span className="spacer" />
              {path.digest && <ShortDigest digest={path.digest} />}
            </div>
            {path.diagnostics.length > 0 && <Diagnostics items={path.diagnostics} />}
            {!path.served && path.diagnostics.length === 0 && (
              <p className="muted">The server gave no reason; another path may hold the same skill.</p>
            )}
          </li>
        ))}
      </ul>
    </Panel>
  );
}
