import type { Change } from "../../api/types";
import { hrefOf } from "../../hooks/useRoute";
import { Badge, type Tone } from "../../ui/badges";
import { time } from "../../ui/format";

const TONES: Record<string, Tone> = {
  "skill.published": "ok",
  "skill.activated": "info",
  "skill.deleted": "quiet",
  "skill.quarantined": "bad",
  "tools.changed": "info",
};

/** What happened to what, from the members that every kind of event uses. */
function Subject({ change }: { change: Change }) {
  const { id = change.data.skill, version, by, tools } = change.data;
  if (typeof id !== "string") return <span className="muted">{change.topic}</span>;
  return (
    <>
      <a href={hrefOf(["catalog", ...id.split("/")])}>{id}</a>
      {typeof version === "number" && <span className="version">v{version}</span>}
      {Array.isArray(tools) && (
        <span className="event-by muted">now has {tools.join(", ") || "no tools"}</span>
      )}
      {typeof by === "string" && by && <span className="event-by muted">by {by}</span>}
    </>
  );
}

export function EventRow({ change }: { change: Change }) {
  return (
    <li className="event">
      <time className="event-time" dateTime={change.at}>
        {time(change.at)}
      </time>
      <Badge tone={TONES[change.kind] ?? "quiet"}>{change.kind}</Badge>
      <span className="event-subject">
        <Subject change={change} />
      </span>
      <code className="event-id" title={`${change.id} on ${change.topic}`}>
        {change.id}
      </code>
    </li>
  );
}
