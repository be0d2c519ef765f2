import { useQuery } from "@tanstack/react-query";
import type { ServerStatus } from "../../api/types";
import { useEvents } from "../../hooks/useEvents";
import { useLive } from "../../hooks/useLive";
import { hrefOf } from "../../hooks/useRoute";
import { useServices } from "../../hooks/useServices";
import { seqOf } from "../../live/position";
import { Figure } from "../../ui/figure";
import { bytes, count, duration, plural, uptime } from "../../ui/format";
import { Icon } from "../../ui/icons";
import { Page, Panel } from "../../ui/page";
import { Empty, QueryView } from "../../ui/states";
import { EventRow } from "../events/eventRow";
import { CachePanel } from "./cachePanel";
import { FleetPanel } from "./fleetPanel";
import { HealthPanel } from "./healthPanel";

const EVENTS_SHOWN = 8;

export function OverviewScreen() {
  const { queries } = useServices();
  const status = useQuery(queries.status());
  return (
    <Page title="Overview" lead="One server, every agent's skills, live." updatedAt={status.dataUpdatedAt}>
      <QueryView query={status} rows={2}>
        {(data) => (
          <>
            {data.notices.map((notice) => (
              <p key={notice} className="notice notice-warn">
                <Icon name="warning" />
                <span className="notice-body">{notice}</span>
              </p>
            ))}
            <Figures status={data} />
          </>
        )}
      </QueryView>
      <div className="columns">
        <HealthPanel />
        <CachePanel />
        <FleetPanel />
        <LatestEvents />
        <Workers query={status} />
      </div>
    </Page>
  );
}

function Figures({ status }: { status: ServerStatus }) {
  const live = useLive();
  const streams = Object.entries(status.subscribers);
  const { search } = status;
  const seq = Math.max(seqOf(live.position) ?? 0, seqOf(status.position) ?? 0);
  return (
    <dl className="figures">
      <Figure name="Log position" value={count(seq)} detail={`replica ${status.replica}`} />
      <Figure
        name="Subscribers"
        value={count(streams.reduce((total, [, open]) => total + open, 0))}
        detail={streams.map(([transport, open]) => `${open} ${transport}`).join(" · ")}
      />
      <Figure
        name="Search p95"
        value={duration(search.p95_ms)}
        detail={`p50 ${duration(search.p50_ms)} · p99 ${duration(search.p99_ms)}`}
      />
      <Figure
        name="Search index"
        value={count(search.documents)}
        detail={`${search.mode} · ${plural(search.vectors, "vector")} · ${search.model || "no model"}`}
      />
      <Figure name="Uptime" value={uptime(status.uptime_s)} detail={`Skillwire ${status.version}`} />
    </dl>
  );
}

function LatestEvents() {
  const { query } = useEvents();
  return (
    <Panel title="Latest events" aside={<a href={hrefOf(["events"])}>All events</a>}>
      <QueryView
        query={query}
        isEmpty={(events) => events.length === 0}
        empty={
          <Empty title="Nothing has happened yet">
            Drop a folder with a <code>SKILL.md</code> into a watched folder.
          </Empty>
        }
      >
        {(events) => (
          <ol className="events">
            {events.slice(0, EVENTS_SHOWN).map((change) => (
              <EventRow key={change.id} change={change} />
            ))}
          </ol>
        )}
      </QueryView>
    </Panel>
  );
}

function Workers({ query }: { query: Parameters<typeof QueryView<ServerStatus>>[0]["query"] }) {
  return (
    <Panel title="Warm workers">
      <QueryView
        query={query}
        isEmpty={({ workers }) => workers.length === 0}
        empty={
          <Empty title="No worker is warm">The first call of a skill's tool starts one and keeps it.</Empty>
        }
      >
        {({ workers }) => (
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Runs</th>
                <th scope="col" className="number">
                  PID
                </th>
                <th scope="col" className="number">
                  Calls
                </th>
                <th scope="col" className="number">
                  Memory
                </th>
              </tr>
            </thead>
            <tbody>
              {workers.map((worker) => (
                <tr key={worker.pid}>
                  <td className="breakable">{worker.key}</td>
                  <td className="number">{worker.pid}</td>
                  <td className="number">{count(worker.calls)}</td>
                  <td className="number">{bytes(worker.rss_bytes)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </QueryView>
    </Panel>
  );
}
