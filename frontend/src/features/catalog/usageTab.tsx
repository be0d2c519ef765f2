import { useQuery } from "@tanstack/react-query";
import { CALLS_SHOWN_MAX } from "../../api/queries";
import type { Invocation, SkillUsage } from "../../api/types";
import { useServices } from "../../hooks/useServices";
import { Badge } from "../../ui/badges";
import { count, plural, time } from "../../ui/format";
import { Empty, QueryView } from "../../ui/states";
import { type Column, Table } from "../../ui/table";
import { type Bucket, historyOf, stepName } from "./callBuckets";

const VERSIONS: Column[] = [
  { title: "Version" },
  { title: "Calls", isNumber: true },
  { title: "Failed", isNumber: true },
  { title: "Last call" },
];

export function UsageTab({ id }: { id: string }) {
  const { queries } = useServices();
  const usage = useQuery(queries.usage(id));
  const calls = useQuery(queries.calls(id));
  return (
    <QueryView
      query={usage}
      isEmpty={({ versions }) => versions.length === 0}
      empty={
        <Empty title={`Nothing has called ${id} yet`}>
          Run a tool from the Tools tab, or connect an agent to <code>/mcp</code>.
        </Empty>
      }
    >
      {(counted) => (
        <>
          <h3>Calls over time</h3>
          <QueryView
            query={calls}
            isEmpty={(items) => items.length === 0}
            empty={<Empty title="No call is in the log any more" />}
          >
            {(items) => <CallHistoryView calls={items} />}
          </QueryView>
          <h3>By version</h3>
          <VersionUsage usage={counted} />
        </>
      )}
    </QueryView>
  );
}

function CallHistoryView({ calls }: { calls: Invocation[] }) {
  const { buckets, stepMs, outcomes } = historyOf(calls, Date.now());
  const first = buckets[0];
  return (
    <figure className="history">
      <Bars
        buckets={buckets}
        label={`${plural(calls.length, "call")} since ${first ? time(first.startMs) : "now"}, by ${stepName(stepMs)}`}
      />
      <figcaption>
        <span className="muted">
          {first && time(first.startMs)} to now, by {stepName(stepMs)}
          {calls.length >= CALLS_SHOWN_MAX && `; the newest ${count(CALLS_SHOWN_MAX)} calls`}
        </span>
        <ul className="outcomes" aria-label="Calls by outcome">
          {outcomes.map(([outcome, calls]) => (
            <li key={outcome}>
              <Badge tone={outcome === "ok" ? "ok" : "bad"}>{outcome}</Badge> {count(calls)}
            </li>
          ))}
        </ul>
      </figcaption>
    </figure>
  );
}

const HEIGHT = 100;
const WIDTH = 10;

function Bars({ buckets, label }: { buckets: Bucket[]; label: string }) {
  const most = Math.max(1, ...buckets.map(({ ok, failed }) => ok + failed));
  return (
    <svg
      className="bars"
      role="img"
      aria-label={label}
      viewBox={`0 0 ${buckets.length * WIDTH} ${HEIGHT}`}
      preserveAspectRatio="none"
    >
      {buckets.map(({ startMs, ok, failed }, at) => {
        const [good, bad] = [ok, failed].map((calls) => (calls / most) * HEIGHT) as [number, number];
        return (
          <g key={startMs}>
            <title>{`${time(startMs)}: ${count(ok)} ok, ${count(failed)} failed`}</title>
            <rect className="bar-ok" x={at * WIDTH + 1} y={HEIGHT - good} width={WIDTH - 2} height={good} />
            <rect
              className="bar-bad"
              x={at * WIDTH + 1}
              y={HEIGHT - good - bad}
              width={WIDTH - 2}
              height={bad}
            />
          </g>
        );
      })}
    </svg>
  );
}

function VersionUsage({ usage }: { usage: SkillUsage }) {
  return (
    <Table columns={VERSIONS}>
      {usage.versions
        .toSorted((a, b) => b.version - a.version)
        .map((each) => (
          <tr key={each.version}>
            <td>
              <span className="version">v{each.version}</span>
            </td>
            <td className="number">{count(each.calls)}</td>
            <td className="number">{count(each.failures)}</td>
            <td className="muted">{time(each.last_at)}</td>
          </tr>
        ))}
    </Table>
  );
}
