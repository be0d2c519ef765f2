import { useQuery } from "@tanstack/react-query";
import { useLayoutEffect, useRef } from "react";
import type { SkillDetail } from "../../api/types";
import { hrefOf, useRoute } from "../../hooks/useRoute";
import { useServices } from "../../hooks/useServices";
import { DigestButton, GradeBadge, StatusBadge, VersionTag } from "../../ui/badges";
import { Diagnostics } from "../../ui/diagnostics";
import { Icon } from "../../ui/icons";
import { QueryView } from "../../ui/states";
import { FilesTab } from "./filesTab";
import { Frontmatter } from "./frontmatter";
import { RestoreNotice } from "./restoreNotice";
import { ToolsTab } from "./toolsTab";
import { TraceTab } from "./traceTab";
import { UsageTab } from "./usageTab";
import { VersionsTab } from "./versionsTab";

const TABS = ["details", "files", "versions", "usage", "tools", "trace"] as const;
type Tab = (typeof TABS)[number];

/** One skill in full, over the catalog. Where it stands is in the address, so it can be shared. */
export function SkillDrawer({ id, onClose }: { id: string; onClose: () => void }) {
  const { queries } = useServices();
  const query = useQuery(queries.skill(id));
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  // A layout effect closes the dialog while it is still in the page, which gives the focus back.
  useLayoutEffect(() => {
    const opened = dialog.current;
    opened?.showModal();
    // The heading says where one is; the first button, which gets the focus otherwise, only how to leave.
    heading.current?.focus();
    return () => opened?.close();
  }, []);
  return (
    // A modal dialog brings the focus trap, Escape and the return of the focus with it.
    <dialog
      ref={dialog}
      className="drawer"
      aria-label={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(click) => {
        if (click.target === dialog.current) onClose();
      }}
      onKeyDown={(press) => {
        if (press.key === "Escape") onClose();
      }}
    >
      <div className="drawer-body">
        <header className="drawer-head">
          <h2 ref={heading} className="breakable" tabIndex={-1}>
            {id}
          </h2>
          <button type="button" className="button button-icon" aria-label="Close" onClick={onClose}>
            <Icon name="close" />
          </button>
        </header>
        <QueryView query={query} rows={8}>
          {(skill) => <SkillBody skill={skill} />}
        </QueryView>
      </div>
    </dialog>
  );
}

function SkillBody({ skill }: { skill: SkillDetail }) {
  const { params } = useRoute();
  const asked = params.get("tab");
  const tab = TABS.find((known) => known === asked) ?? "details";
  const counts: Partial<Record<Tab, number>> = { files: skill.manifest.length, tools: skill.tools.length };
  return (
    <>
      <div className="drawer-facts">
        <VersionTag version={skill.version} />
        {skill.digest && <DigestButton digest={skill.digest} />}
        <GradeBadge grade={skill.grade} />
        <StatusBadge status={skill.status} />
        <span className="muted">seq {skill.seq}</span>
      </div>
      <p className="drawer-lead">{skill.description}</p>
      {skill.deleted_version !== null && <RestoreNotice id={skill.id} version={skill.deleted_version} />}
      <nav className="tabs" aria-label="Parts of this skill">
        {TABS.map((name) => (
          <a
            key={name}
            href={hrefOf(["catalog", skill.owner, skill.name], name === "details" ? {} : { tab: name })}
            aria-current={name === tab ? "true" : undefined}
          >
            {name}
            {counts[name] !== undefined && <span className="tab-count">{counts[name]}</span>}
          </a>
        ))}
      </nav>
      <div className="tab-body">
        {tab === "details" && <Details skill={skill} />}
        {tab === "files" && <FilesTab skill={skill} />}
        {tab === "versions" && <VersionsTab id={skill.id} activeVersion={skill.version} />}
        {tab === "usage" && <UsageTab id={skill.id} />}
        {tab === "tools" && <ToolsTab tools={skill.tools} />}
        {tab === "trace" && <TraceTab id={skill.id} />}
      </div>
    </>
  );
}

function Details({ skill }: { skill: SkillDetail }) {
  return (
    <>
      <h3>Diagnostics</h3>
      {skill.diagnostics.length === 0 ? (
        <p className="muted">None for the active version.</p>
      ) : (
        <Diagnostics items={skill.diagnostics} />
      )}
      <h3>Frontmatter</h3>
      <Frontmatter values={skill.frontmatter} />
    </>
  );
}
