import { useState } from "react";
import { useServices } from "../../hooks/useServices";
import { type Trace, type TraceStep, useTrace } from "../../hooks/useTrace";
import { Badge, type Tone } from "../../ui/badges";
import { time } from "../../ui/format";
import { Empty, ErrorNotice } from "../../ui/states";

/** What the steps of a read are called here; a kind that is not in it is shown by its name. */
const STEPS: Record<string, [string, Tone]> = {
  l1_hit: ["memory answered", "ok"],
  l1_miss: ["not in memory", "quiet"],
  l1_refused: ["memory refused: the log had moved on", "warn"],
  l2_hit: ["Redis answered", "ok"],
  l2_miss: ["not in Redis", "quiet"],
  l2_refused: ["Redis refused", "warn"],
  load_started: ["load began", "info"],
  load_finished: ["loaded", "info"],
  load_failed: ["load failed", "bad"],
  joined: ["joined a load under way", "quiet"],
  stored: ["stored", "info"],
  evicted: ["made room for others", "quiet"],
  invalidated: ["forgotten by hand", "warn"],
  stale_served: ["answered from before, labelled stale", "warn"],
  refresh_started: ["refresh began", "info"],
};

/** One key followed live through the tiers of the replica that serves this page. */
export function TraceTab({ id }: { id: string }) {
  const { api } = useServices();
  const [attempt, setAttempt] = useState(0);
  const [refused, setRefused] = useState<Error | null>(null);
  const trace = useTrace(`detail:${id}`, attempt);
  const read = () => {
    setRefused(null);
    api.get(`/skills/${id}`).catch(setRefused);
  };
  return (
    <>
      <div className="trace-head">
        <p className="muted" role="status">
          {lead(trace)}
        </p>
        {trace.state === "ended" ? (
          <button type="button" className="button" onClick={() => setAttempt(attempt + 1)}>
            Follow again
          </button>
        ) : (
          <button type="button" className="button" disabled={trace.state === "connecting"} onClick={read}>
            Read it now
          </button>
        )}
      </div>
      {trace.error && <ErrorNotice error={trace.error} />}
      {refused && <ErrorNotice error={refused} retry={read} />}
      {trace.steps.length === 0 ? (
        <Empty title="Nothing has read this skill since you look">
          Read it now, or from an agent, and see which tier answers.
        </Empty>
      ) : (
        <table className="table">
          <thead>
            <tr>
              <th scope="col">Time</th>
              <th scope="col">What happened</th>
              <th scope="col">Facts</th>
            </tr>
          </thead>
          <tbody>
            {trace.steps.map((step) => (
              <Step key={step.number} step={step} />
            ))}
          </tbody>
        </table>
      )}
    </>
  );
}

function lead({ state, replica }: Trace): string {
  if (state === "connecting") return "Connecting";
  if (state === "ended") return "The stream has ended.";
  return `Following reads in replica ${replica}.`;
}

function Step({ step }: { step: TraceStep }) {
  const [words, tone] = STEPS[step.kind] ?? [step.kind, "quiet"];
  return (
    <tr>
      <td className="nowrap muted">
        <time dateTime={step.at}>{time(step.at)}</time>
      </td>
      <td>
        <Badge tone={tone}>{words}</Badge>
      </td>
      <td className="breakable">
        <code className="muted">{factsOf(step.facts)}</code>
      </td>
    </tr>
  );
}

function factsOf(facts: Record<string, unknown>): string {
  return Object.entries(facts)
    .map(([name, value]) => `${name} ${typeof value === "number" ? round(value) : shown(value)}`)
    .join(" · ");
}

function shown(value: unknown): string {
  return Array.isArray(value) ? value.join(", ") : String(value);
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
