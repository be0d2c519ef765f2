import { useState } from "react";
import { useEvents } from "../../hooks/useEvents";
import { FilterBox } from "../../ui/filterBox";
import { plural } from "../../ui/format";
import { Icon } from "../../ui/icons";
import { Page } from "../../ui/page";
import { Empty, QueryView } from "../../ui/states";
import { EventRow } from "./eventRow";

export function EventsScreen() {
  const { query, events, isPaused, heldBack, toggle } = useEvents();
  const [filter, setFilter] = useState("");
  const needle = filter.trim().toLowerCase();
  const shown = (events ?? []).filter(
    ({ id, kind, topic, data }) =>
      !needle ||
      `${kind} ${topic} ${id} ${typeof data.id === "string" ? data.id : ""}`.toLowerCase().includes(needle),
  );
  return (
    <Page
      title="Events"
      lead="The change log as it is written: nothing is announced before it is committed."
      updatedAt={query.dataUpdatedAt}
      tools={
        <>
          <FilterBox label="Filter by kind, topic, skill or id" value={filter} onChange={setFilter} />
          <button type="button" className="button" aria-pressed={isPaused} onClick={toggle}>
            <Icon name={isPaused ? "invocations" : "pause"} />
            {isPaused ? `Resume${heldBack ? ` (${heldBack} new)` : ""}` : "Pause"}
          </button>
        </>
      }
    >
      <div className="panel">
        <QueryView
          query={query}
          rows={8}
          isEmpty={() => events?.length === 0}
          empty={
            <Empty title="Nothing has happened yet">
              Drop a folder with a <code>SKILL.md</code> into a watched folder, or publish one with{" "}
              <code>skillwire publish DIR</code>. It appears here within a moment.
            </Empty>
          }
        >
          {() =>
            shown.length === 0 ? (
              <Empty title="No event matches the filter" />
            ) : (
              <ol className="events" aria-label={plural(shown.length, "event")}>
                {shown.map((change) => (
                  <EventRow key={change.id} change={change} />
                ))}
              </ol>
            )
          }
        </QueryView>
      </div>
    </Page>
  );
}
