import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { rollback } from "../../api/commands";
import { keys } from "../../api/queries";
import type { SkillVersion } from "../../api/types";
import { useCommand } from "../../hooks/useCommand";
import { useServices } from "../../hooks/useServices";
import { Badge, DigestButton, GradeBadge } from "../../ui/badges";
import { plural, time } from "../../ui/format";
import { Empty, ErrorNotice, QueryView } from "../../ui/states";

export function VersionsTab({ id, activeVersion }: { id: string; activeVersion: number | null }) {
  const { queries } = useServices();
  const query = useQuery(queries.versions(id));
  return (
    <QueryView
      query={query}
      isEmpty={(versions) => versions.length === 0}
      empty={<Empty title="No versions" />}
    >
      {(versions) => (
        <ol className="versions">
          {versions
            .toSorted((a, b) => b.version - a.version)
            .map((version) => (
              <VersionRow key={version.version} id={id} version={version} activeVersion={activeVersion} />
            ))}
        </ol>
      )}
    </QueryView>
  );
}

interface VersionRowProps {
  id: string;
  version: SkillVersion;
  activeVersion: number | null;
}

function VersionRow({ id, version, activeVersion }: VersionRowProps) {
  const [isAsking, setAsking] = useState(false);
  const command = useCommand(rollback, [keys.skill(id), keys.skills]);
  const verb = activeVersion !== null && version.version < activeVersion ? "Roll back" : "Activate";
  const commit = () =>
    command.mutate({ id, version: version.version }, { onSettled: () => setAsking(false) });
  return (
    <li className="version-row">
      <div className="version-line">
        <span className="version">v{version.version}</span>
        <DigestButton digest={version.digest} />
        <GradeBadge grade={version.grade} />
        {version.active && <Badge tone="info">active</Badge>}
        <span className="spacer" />
        {!version.active && !isAsking && version.grade !== "quarantined" && (
          <button type="button" className="button" onClick={() => setAsking(true)}>
            {verb}
          </button>
        )}
      </div>
      <p className="muted">
        {time(version.created_at)} by {version.created_by} · {plural(version.manifest.length, "file")}
      </p>
      {isAsking && (
        <fieldset className="confirm" disabled={command.isPending}>
          <legend>Every agent will get v{version.version} from the next call on.</legend>
          <button type="button" className="button button-primary" onClick={commit}>
            {command.isPending
              ? "Working"
              : verb === "Activate"
                ? `Activate v${version.version}`
                : `Roll back to v${version.version}`}
          </button>
          <button type="button" className="button" onClick={() => setAsking(false)}>
            Cancel
          </button>
        </fieldset>
      )}
      {command.error && <ErrorNotice error={command.error} />}
    </li>
  );
}
