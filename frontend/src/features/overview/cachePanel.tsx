import { useQuery } from "@tanstack/react-query";
import type { CacheStats } from "../../api/types";
import { useServices } from "../../hooks/useServices";
import { Badge, type Tone } from "../../ui/badges";
import { bytes, count, percent, plural } from "../../ui/format";
import { Meter } from "../../ui/meter";
import { Panel } from "../../ui/page";
import { QueryView } from "../../ui/states";

const L2_TONES: Record<CacheStats["l2"]["state"], Tone> = { on: "ok", off: "quiet", open: "bad" };
const L2_WORDS: Record<CacheStats["l2"]["state"], string> = { on: "on", off: "off", open: "breaker open" };

/** null while nothing has been asked of the tier: no reads is not a hit rate of zero. */
function rateOf({ hits, misses }: { hits: number; misses: number }): number | null {
  return hits + misses > 0 ? hits / (hits + misses) : null;
}

export function CachePanel() {
  const { queries } = useServices();
  const query = useQuery(queries.cache());
  return (
    <Panel title="Cache hit rate by tier">
      <QueryView query={query} rows={3}>
        {({ l1, l2, loads, refused }) => (
          <>
            <ul className="tiers">
              <Tier
                name="L1 memory"
                rate={rateOf(l1)}
                detail={`${count(l1.hits)} hits · ${count(l1.entries)} of ${count(l1.entries_max)} entries · ${bytes(l1.bytes)}`}
              />
              <Tier
                name="L2 Redis"
                rate={l2.state === "off" ? null : rateOf(l2)}
                detail={
                  l2.state === "on" ? `${count(l2.hits)} hits · ${plural(l2.errors, "error")}` : l2.detail
                }
                badge={<Badge tone={L2_TONES[l2.state] ?? "quiet"}>{L2_WORDS[l2.state] ?? l2.state}</Badge>}
              />
              <Tier
                name="L3 store"
                rate={null}
                detail={`${plural(loads, "load")} that no cache could answer`}
              />
            </ul>
            <p className="footnote">
              {refused === 0
                ? "No cached record has been refused."
                : `${plural(refused, "cached record")} refused because the log had moved on.`}
            </p>
          </>
        )}
      </QueryView>
    </Panel>
  );
}

interface TierProps {
  name: string;
  rate: number | null;
  detail: string;
  badge?: React.ReactNode;
}

function Tier({ name, rate, detail, badge }: TierProps) {
  return (
    <li className="tier">
      <div className="tier-line">
        <span className="tier-name">{name}</span>
        {badge}
        <strong className="tier-rate">{rate === null ? "–" : percent(rate)}</strong>
      </div>
      {rate !== null && <Meter share={rate} />}
      <p className="muted">{detail}</p>
    </li>
  );
}
