import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import type { SkillList } from "../../api/queries";
import type { SkillSummary } from "../../api/types";
import { hrefOf, navigate, useRoute } from "../../hooks/useRoute";
import { useServices } from "../../hooks/useServices";
import { GradeBadge, ShortDigest, StatusBadge } from "../../ui/badges";
import { FilterBox } from "../../ui/filterBox";
import { count, plural, time } from "../../ui/format";
import { Page } from "../../ui/page";
import { Empty, QueryView } from "../../ui/states";
import { type Column, Table } from "../../ui/table";
import { SkillDrawer } from "./skillDrawer";

const COLUMNS: Column[] = [
  { title: "Skill" },
  { title: "Description", isWideOnly: true },
  { title: "Version", isNumber: true },
  { title: "Digest", isWideOnly: true },
  { title: "Grade" },
  { title: "Status", isWideOnly: true },
  { title: "Updated", isWideOnly: true },
];

/** Rows drawn at first; a filter or the button reaches the others. */
const ROWS_STEP = 200;

export function CatalogScreen() {
  const { queries } = useServices();
  const query = useQuery(queries.skills());
  const { path } = useRoute();
  const [, owner, name] = path;
  const [filter, setFilter] = useState("");
  const shown = matching(query.data?.items ?? [], filter);
  return (
    <Page
      title="Catalog"
      lead={query.data?.items.length ? leadOf(query.data) : "Every skill that agents can use."}
      updatedAt={query.dataUpdatedAt}
      tools={<FilterBox label="Filter skills" value={filter} onChange={setFilter} />}
    >
      <div className="panel">
        <QueryView
          query={query}
          rows={8}
          isEmpty={({ items }) => items.length === 0}
          empty={
            <Empty title="The catalog is empty">
              Drop a folder with a <code>SKILL.md</code> into a watched folder, or run{" "}
              <code>skillwire publish DIR</code>. <a href={hrefOf(["sources"])}>Sources</a> shows what is
              watched and why something is not served.
            </Empty>
          }
        >
          {() =>
            shown.length === 0 ? <Empty title="No skill matches the filter" /> : <SkillTable skills={shown} />
          }
        </QueryView>
      </div>
      {owner && name && (
        <SkillDrawer
          id={`${owner}/${name}`}
          onClose={() => navigate(hrefOf(["catalog"]), { replace: true })}
        />
      )}
    </Page>
  );
}

function leadOf({ items, isCut }: SkillList): string {
  if (isCut) return `The first ${count(items.length)} skills; search finds the others.`;
  const served = items.filter((skill) => skill.status === "active").length;
  const others = items.length - served;
  return `${plural(served, "skill")} that agents can use${others > 0 ? `, ${count(others)} that they cannot` : ""}.`;
}

function matching(skills: SkillSummary[], filter: string): SkillSummary[] {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return skills;
  return skills.filter((skill) => {
    const text =
      `${skill.id} ${skill.description} ${skill.grade} ${skill.status} ${skill.digest}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function SkillTable({ skills }: { skills: SkillSummary[] }) {
  const [rowsMax, setRowsMax] = useState(ROWS_STEP);
  // Rows newer than this screen were changed while somebody was looking: they are marked for a moment.
  const [seqAtMount] = useState(() => Math.max(...skills.map((skill) => skill.seq)));
  const hidden = skills.length - rowsMax;
  return (
    <>
      <Table columns={COLUMNS} hasLinks>
        {skills.slice(0, rowsMax).map((skill) => (
          <SkillRow key={`${skill.id}@${skill.seq}`} skill={skill} isFresh={skill.seq > seqAtMount} />
        ))}
      </Table>
      {hidden > 0 && (
        <button type="button" className="button more" onClick={() => setRowsMax(rowsMax + ROWS_STEP)}>
          Show {Math.min(hidden, ROWS_STEP)} more of {count(hidden)}
        </button>
      )}
    </>
  );
}

function SkillRow({ skill, isFresh }: { skill: SkillSummary; isFresh: boolean }) {
  return (
    <tr className={isFresh ? "fresh" : undefined}>
      <td className="skill-cell">
        <a className="row-link" href={hrefOf(["catalog", skill.owner, skill.name])}>
          <span className="muted">{skill.owner}/</span>
          {skill.name}
        </a>
        <span className="narrow-only clamp muted">{skill.description}</span>
      </td>
      <td className="wide-only description-cell">
        <span className="line" title={skill.description}>
          {skill.description}
        </span>
      </td>
      <td className="number">{skill.version === null ? "–" : `v${skill.version}`}</td>
      <td className="wide-only">
        <ShortDigest digest={skill.digest} />
      </td>
      <td>
        <GradeBadge grade={skill.grade} />
      </td>
      <td className="wide-only">
        <StatusBadge status={skill.status} />
      </td>
      <td className="wide-only nowrap muted">{skill.updated_at ? time(skill.updated_at) : "–"}</td>
    </tr>
  );
}
