import { useInfiniteQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import type { Invocation } from "../../api/types";
import { hrefOf } from "../../hooks/useRoute";
import { useServices } from "../../hooks/useServices";
import { Badge, ShortDigest } from "../../ui/badges";
import { FilterBox } from "../../ui/filterBox";
import { duration, time } from "../../ui/format";
import { Page } from "../../ui/page";
import { Empty, QueryView, ShowOlder } from "../../ui/states";
import { type Column, Table } from "../../ui/table";

const COLUMNS: Column[] = [
  { title: "Time" },
  { title: "Call" },
  { title: "Caller", isWideOnly: true },
  { title: "Version and digest", isWideOnly: true },
  { title: "Outcome" },
  { title: "Took", isNumber: true, isWideOnly: true },
];

const TYPING_PAUSE_MS = 250;
/** The server filters by a whole id; half of one would only find nothing. */
const SKILL_ID = /^[^/\s]+\/[^/\s]+$/;

export function InvocationsScreen() {
  const { queries } = useServices();
  const [text, setText] = useState("");
  const [skill, setSkill] = useState("");
  useEffect(() => {
    const wanted = text.trim();
    const timer = setTimeout(() => setSkill(SKILL_ID.test(wanted) ? wanted : ""), TYPING_PAUSE_MS);
    return () => clearTimeout(timer);
  }, [text]);
  const query = useInfiniteQuery(queries.invocations(skill));
  return (
    <Page
      title="Invocations"
      lead="Who called what, and which version and digest answered."
      updatedAt={query.dataUpdatedAt}
      tools={<FilterBox label="Only skill owner/name" value={text} onChange={setText} />}
    >
      <div className="panel">
        <QueryView
          query={query}
          rows={8}
          isEmpty={({ pages }) => pages.every((page) => page.items.length === 0)}
          empty={
            <Empty title={skill ? `Nothing has called ${skill} yet` : "Nothing has been called yet"}>
              Run a tool from a skill's Tools tab, or connect an agent to <code>/mcp</code>.
            </Empty>
          }
        >
          {({ pages }) => <InvocationTable items={pages.flatMap((page) => page.items)} />}
        </QueryView>
        <ShowOlder query={query} />
      </div>
    </Page>
  );
}

function InvocationTable({ items }: { items: Invocation[] }) {
  return (
    <Table columns={COLUMNS}>
      {items.map((call) => (
        <InvocationRow key={call.id} call={call} />
      ))}
    </Table>
  );
}

function InvocationRow({ call }: { call: Invocation }) {
  const used = call.skill_id && (
    <>
      <a href={hrefOf(["catalog", ...call.skill_id.split("/")])}>{call.skill_id}</a>
      <span className="version">v{call.version}</span>
      <ShortDigest digest={call.digest} />
    </>
  );
  return (
    <tr>
      <td className="nowrap muted">
        <time dateTime={call.at}>{time(call.at)}</time>
      </td>
      <td className="call-cell">
        <span className="breakable">{call.target}</span>
        {call.arguments && (
          <code className="arguments line" title={call.arguments}>
            {call.arguments}
          </code>
        )}
        <span className="narrow-only">{used}</span>
        <span className="narrow-only muted">
          {call.caller} over {call.transport} · {duration(call.duration_ms)}
        </span>
      </td>
      <td className="wide-only caller-cell">
        <span title={call.session ? `session ${call.session}` : undefined}>{call.caller}</span>
        <span className="under muted">over {call.transport}</span>
      </td>
      <td className="wide-only used-cell">{used || <span className="muted">none</span>}</td>
      <td>
        <Badge tone={call.ok ? "ok" : "bad"}>{call.ok ? "ok" : call.code || "failed"}</Badge>
      </td>
      <td className="number wide-only nowrap">{duration(call.duration_ms)}</td>
    </tr>
  );
}
