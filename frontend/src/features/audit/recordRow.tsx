import { type ReactNode, useState } from "react";
import type { AuditFilter, AuditRecord } from "../../api/types";
import { hrefOf } from "../../hooks/useRoute";
import { CopyButton } from "../../ui/badges";
import { count, time } from "../../ui/format";
import { Icon } from "../../ui/icons";
import type { Column } from "../../ui/table";
import { labelOf, skillOf, subjectOf, whatOf, whoOf } from "./words";

export const COLUMNS: Column[] = [
  { title: "Time" },
  { title: "What" },
  { title: "Subject", isWideOnly: true },
  { title: "Who", isWideOnly: true },
];

/** One change in a line, and under it, when asked for, the record as it was sealed. */
export function RecordRow({ record, filter }: { record: AuditRecord; filter: AuditFilter }) {
  const [isOpen, setOpen] = useState(false);
  const details = `record-${record.seq}`;
  const subject = <Subject subject={record.subject} />;
  const who = <Who record={record} filter={filter} />;
  return (
    <>
      <tr>
        <td className="nowrap muted">
          <time dateTime={record.at} title={record.at}>
            {time(record.at)}
          </time>
        </td>
        <td>
          <button
            type="button"
            className="disclosure breakable"
            aria-expanded={isOpen}
            aria-controls={isOpen ? details : undefined}
            onClick={() => setOpen(!isOpen)}
          >
            <Icon name="open" />
            {whatOf(record)}
          </button>
          <span className="narrow-only breakable">{subject}</span>
          <span className="narrow-only breakable">{who}</span>
        </td>
        <td className="wide-only breakable">{subject}</td>
        <td className="wide-only breakable">{who}</td>
      </tr>
      {isOpen && (
        <tr id={details}>
          <td colSpan={COLUMNS.length}>
            <Details record={record} />
          </td>
        </tr>
      )}
    </>
  );
}

function Subject({ subject }: { subject: string }) {
  const skill = skillOf(subject);
  if (skill === null) return subjectOf(subject);
  return <a href={hrefOf(["catalog", ...skill.split("/")])}>{skill}</a>;
}

function Who({ record, filter }: { record: AuditRecord; filter: AuditFilter }) {
  const { by } = record;
  const { name, meaning } = whoOf(record);
  return (
    <>
      {by ? (
        <a href={hrefOf(["audit"], { ...filter, by })} title={`Only what ${by} did`}>
          {name}
        </a>
      ) : (
        name
      )}
      {meaning && <span className="under muted">{meaning}</span>}
    </>
  );
}

function Details({ record }: { record: AuditRecord }) {
  const key = record.key_id ? `with the key ${record.key_id}` : "without a key";
  return (
    <dl className="pairs">
      <Pair name="Change">
        {count(record.seq)}, {labelOf(record.kind)}, {record.at}
      </Pair>
      <Pair name="Sealed">
        {record.sealed_at}, {key}
      </Pair>
      <Pair name="Hash">
        <CopyButton text={record.hash} label="Copy the hash">
          {record.hash}
        </CopyButton>
      </Pair>
      <Pair name="Hash before it">
        <CopyButton text={record.prev} label="Copy the hash before it">
          {record.prev}
        </CopyButton>
      </Pair>
      <Pair name="Data">
        <code>{JSON.stringify(record.data, null, 2)}</code>
      </Pair>
    </dl>
  );
}

function Pair({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className="pair">
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
