import { useMutation, useQuery } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { type ApiError, segments } from "../../api/client";
import { pin, rollback } from "../../api/commands";
import { keys } from "../../api/queries";
import type { SkillVersion } from "../../api/types";
import { useCommand } from "../../hooks/useCommand";
import { hrefOf, useRoute } from "../../hooks/useRoute";
import { useServices } from "../../hooks/useServices";
import { Badge, DigestButton, GradeBadge } from "../../ui/badges";
import { Confirm } from "../../ui/confirm";
import { plural, time } from "../../ui/format";
import { saveFile } from "../../ui/save";
import { Empty, ErrorNotice, QueryView } from "../../ui/states";
import { Comparison } from "./comparison";

export function VersionsTab({ id, activeVersion }: { id: string; activeVersion: number | null }) {
  const { queries } = useServices();
  const { params } = useRoute();
  const query = useQuery(queries.versions(id));
  return (
    <QueryView
      query={query}
      isEmpty={(versions) => versions.length === 0}
      empty={<Empty title="No versions" />}
    >
      {(versions) => {
        const newestFirst = versions.toSorted((a, b) => b.version - a.version);
        const [from, to] = [params.get("from"), params.get("to")].map(Number);
        return (
          <>
            {from && to ? (
              <Comparison id={id} versions={newestFirst.map((each) => each.version)} from={from} to={to} />
            ) : null}
            <ol className="versions">
              {newestFirst.map((version, at) => (
                <VersionRow
                  key={version.version}
                  id={id}
                  version={version}
                  before={newestFirst[at + 1]?.version ?? null}
                  activeVersion={activeVersion}
                />
              ))}
            </ol>
          </>
        );
      }}
    </QueryView>
  );
}

interface VersionRowProps {
  id: string;
  version: SkillVersion;
  /** The version to compare it with; null for the oldest. */
  before: number | null;
  activeVersion: number | null;
}

function VersionRow({ id, version, before, activeVersion }: VersionRowProps) {
  const [asked, setAsked] = useState<"activate" | "unpin" | null>(null);
  const opener = useRef<HTMLButtonElement>(null);
  const number = version.version;
  const affected = [keys.skill(id), keys.skills];
  const activation = useCommand(rollback, affected);
  const pinning = useCommand(pin, affected);
  const isServable = version.grade !== "quarantined";
  const isOlder = activeVersion !== null && number < activeVersion;
  const close = () => {
    setAsked(null);
    opener.current?.focus();
  };
  const ask = (what: typeof asked, button: HTMLButtonElement) => {
    opener.current = button;
    setAsked(what);
  };
  return (
    <li className="version-row" aria-label={`Version ${number}`}>
      <div className="version-line">
        <span className="version">v{number}</span>
        <DigestButton digest={version.digest} />
        <GradeBadge grade={version.grade} />
        {version.active && <Badge tone="info">active</Badge>}
        {version.pinned && (
          <Badge tone="quiet" title="Retention leaves it alone">
            pinned
          </Badge>
        )}
      </div>
      <p className="muted">
        {time(version.created_at)} by {version.created_by} · {plural(version.manifest.length, "file")}
      </p>
      <div className="version-actions">
        {!version.active && isServable && (
          <button type="button" className="button" onClick={(click) => ask("activate", click.currentTarget)}>
            {isOlder ? "Roll back" : "Activate"}
          </button>
        )}
        <button
          type="button"
          className="button"
          disabled={pinning.isPending}
          onClick={(click) =>
            version.pinned
              ? ask("unpin", click.currentTarget)
              : pinning.mutate({ id, version: number, pinned: true })
          }
        >
          {version.pinned ? "Unpin" : "Pin"}
        </button>
        {before !== null && isServable && (
          <a
            className="button"
            href={hrefOf(["catalog", ...id.split("/")], {
              tab: "versions",
              from: String(before),
              to: String(number),
            })}
          >
            Compare with v{before}
          </a>
        )}
        {isServable && <ExportButton id={id} version={number} />}
      </div>
      {asked === "activate" && (
        <Confirm
          question={`Every agent will get v${number} from the next call on.`}
          verb={isOlder ? `Roll back to v${number}` : `Activate v${number}`}
          isPending={activation.isPending}
          onCommit={() => activation.mutate({ id, version: number }, { onSettled: close })}
          onCancel={close}
        />
      )}
      {asked === "unpin" && (
        <Confirm
          question={`Retention may then remove v${number} for good.`}
          verb={`Unpin v${number}`}
          isPending={pinning.isPending}
          onCommit={() => pinning.mutate({ id, version: number, pinned: false }, { onSettled: close })}
          onCancel={close}
        />
      )}
      {[activation.error, pinning.error].map(
        (error) => error && <ErrorNotice key={error.code} error={error} />,
      )}
    </li>
  );
}

function ExportButton({ id, version }: { id: string; version: number }) {
  const { api } = useServices();
  const download = useMutation<void, ApiError>({
    mutationFn: async () =>
      saveFile(
        await api.bytes(`/skills/${segments(id)}/export`, { version }),
        `${id.split("/")[1]}-${version}.zip`,
        "application/zip",
      ),
  });
  return (
    <>
      <button
        type="button"
        className="button"
        disabled={download.isPending}
        onClick={() => download.mutate()}
      >
        {download.isPending ? "Exporting" : "Export zip"}
      </button>
      {download.error && <ErrorNotice error={download.error} />}
    </>
  );
}
