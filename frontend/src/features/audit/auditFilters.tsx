import type { AuditFilter } from "../../api/types";
import { hrefOf, navigate } from "../../hooks/useRoute";
import { useTyped } from "../../hooks/useTyped";
import { FilterBox } from "../../ui/filterBox";
import { filterOf, KINDS, labelOf, localOf, stampOf } from "./words";

/** The server filters by a whole id; half of one would only be refused. */
const SKILL_ID = /^[^/\s]+\/[^/\s]+$/;
const wholeId = (text: string) => (SKILL_ID.test(text.trim()) ? text.trim() : "");

/** What is filtered by is in the address, so it can be shared. */
export function AuditFilters({ filter }: { filter: AuditFilter }) {
  const { skill = "", by = "", kind = "", since, until } = filter;
  const show = (change: AuditFilter) => {
    const fields = { ...filter, ...change };
    navigate(
      hrefOf(
        ["audit"],
        filterOf((name) => fields[name]),
      ),
      { replace: true },
    );
  };
  const [skillText, setSkillText] = useTyped(skill, wholeId, (id) => show({ skill: id }));
  return (
    <section className="filters" aria-label="Filters">
      <FilterBox label="Only skill owner/name" value={skillText} onChange={setSkillText} />
      <Field label="Who" value={by} onCommit={(principal) => show({ by: principal })} />
      <label className="field">
        <span className="field-name">Kind</span>
        <select value={kind} onChange={(change) => show({ kind: change.target.value })}>
          <option value="">every kind</option>
          {(kind && !KINDS.includes(kind) ? [kind, ...KINDS] : KINDS).map((each) => (
            <option key={each} value={each}>
              {labelOf(each)}
            </option>
          ))}
        </select>
      </label>
      <Field
        label="From"
        isTime
        value={localOf(since)}
        onCommit={(local) => show({ since: stampOf(local) })}
      />
      <Field
        label="Until"
        isTime
        value={localOf(until)}
        onCommit={(local) => show({ until: stampOf(local) })}
      />
      {Object.keys(filter).length > 0 && (
        <a className="button" href={hrefOf(["audit"])}>
          Clear
        </a>
      )}
    </section>
  );
}

interface FieldProps {
  label: string;
  value: string;
  isTime?: boolean;
  onCommit: (value: string) => void;
}

function Field({ label, value, isTime = false, onCommit }: FieldProps) {
  const [text, setText] = useTyped(value, (typed) => typed.trim(), onCommit);
  return (
    <label className="field">
      <span className="field-name">{label}</span>
      <input
        {...(isTime ? { type: "datetime-local", max: "9999-12-31T23:59" } : { type: "text", maxLength: 200 })}
        value={text}
        spellCheck={false}
        autoComplete="off"
        onChange={(change) => setText(change.target.value)}
      />
    </label>
  );
}
