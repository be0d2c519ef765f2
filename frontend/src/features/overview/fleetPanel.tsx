import { useWebSocketStats } from "../../hooks/useWebSocketStats";
import { seqOf } from "../../live/position";
import type { Coverage } from "../../live/transport";
import { Badge, type Tone } from "../../ui/badges";
import { count, uptime } from "../../ui/format";
import { Panel } from "../../ui/page";
import { Empty } from "../../ui/states";
import { type Column, Table } from "../../ui/table";

const COVERAGES: Record<Coverage, { tone: Tone; word: string; note: string }> = {
  fleet: { tone: "ok", word: "all replicas", note: "Replicas tell each other over Redis." },
  local: { tone: "quiet", word: "this replica", note: "Without Redis a replica knows only itself." },
  degraded: {
    tone: "bad",
    word: "degraded",
    note: "Redis is lost: the other replicas are not heard, and what they said last is going.",
  },
};

const COLUMNS: Column[] = [
  { title: "Replica" },
  { title: "Uptime", isNumber: true },
  { title: "Streams", isNumber: true },
  { title: "Log", isNumber: true },
];

export function FleetPanel() {
  const { replicas, coverage, connected } = useWebSocketStats();
  const told = coverage && COVERAGES[coverage];
  return (
    <Panel
      title="Replicas"
      aside={told && <Badge tone={connected ? told.tone : "warn"}>{connected ? told.word : "stale"}</Badge>}
    >
      {replicas.length === 0 ? (
        <Empty title="No replica has reported">
          Each says every two seconds how it is, over the live connection.
        </Empty>
      ) : (
        <>
          <Table columns={COLUMNS}>
            {replicas.map(({ replica, isOwn, stats }) => (
              <tr key={replica}>
                <td className="breakable">
                  {replica}
                  {isOwn && <span className="muted"> serves this page</span>}
                </td>
                <td className="number">{uptime(stats.uptime_s)}</td>
                <td className="number">
                  {count(Object.values(stats.subscribers).reduce((total, open) => total + open, 0))}
                </td>
                <td className="number">{count(seqOf(String(stats.position)) ?? 0)}</td>
              </tr>
            ))}
          </Table>
          <p className="footnote">{told?.note}</p>
        </>
      )}
    </Panel>
  );
}
