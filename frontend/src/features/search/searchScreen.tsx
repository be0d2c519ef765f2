import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import type { Answer } from "../../api/client";
import type { SearchAnswer } from "../../api/types";
import { hrefOf, navigate, useRoute } from "../../hooks/useRoute";
import { useServices } from "../../hooks/useServices";
import { ShortDigest } from "../../ui/badges";
import { FilterBox } from "../../ui/filterBox";
import { count, duration, plural } from "../../ui/format";
import { Meter } from "../../ui/meter";
import { Page } from "../../ui/page";
import { Empty, QueryView } from "../../ui/states";

/** A pause in typing: asking at every letter would embed words that nobody means. */
const TYPING_PAUSE_MS = 250;

export function SearchScreen() {
  const { queries } = useServices();
  const { params } = useRoute();
  const asked = params.get("q") ?? "";
  const [text, setText] = useState(asked);
  useEffect(() => {
    const wanted = text.trim();
    if (wanted === asked) return;
    const ask = () => navigate(hrefOf(["search"], wanted ? { q: wanted } : {}), { replace: true });
    const timer = setTimeout(ask, TYPING_PAUSE_MS);
    return () => clearTimeout(timer);
  }, [text, asked]);
  const query = useQuery({ ...queries.search(asked), placeholderData: keepPreviousData });
  return (
    <Page
      title="Search"
      lead="Skills by what they are for, the way an agent finds them."
      updatedAt={query.dataUpdatedAt}
    >
      <FilterBox
        isLarge
        label="Describe the task, for example: summarise a CSV file"
        value={text}
        onChange={setText}
      />
      <div className="panel">
        {asked === "" ? (
          <Empty title="What should the skill do?">
            Plain words work: names need not match. Results carry the version and digest an agent would get.
          </Empty>
        ) : (
          <QueryView
            query={query}
            isEmpty={({ data }) => data.items.length === 0}
            empty={<Empty title="No skill comes near">Try other words, or look through the catalog.</Empty>}
          >
            {(answer) => <Hits answer={answer} isOld={query.isPlaceholderData} />}
          </QueryView>
        )}
      </div>
    </Page>
  );
}

function Hits({ answer, isOld }: { answer: Answer<SearchAnswer>; isOld: boolean }) {
  const { items, mode, index_seq, tokens, tokens_saved } = answer.data;
  const best = Math.max(...items.map((hit) => hit.score));
  return (
    <div aria-busy={isOld} className={isOld ? "waiting" : undefined}>
      <p className="hits-facts">
        <span>{plural(items.length, "skill")}</span>
        <span>{mode} search</span>
        <span>{duration(answer.durationMs)}</span>
        {answer.isCacheHit && <span>from cache</span>}
        <span>index at seq {count(index_seq)}</span>
        <span>
          {count(tokens)} tokens, {count(tokens_saved)} saved
        </span>
      </p>
      <ol className="hits">
        {items.map((hit) => (
          <li key={hit.id} className="hit">
            <div className="hit-line">
              <a className="row-link" href={hrefOf(["catalog", ...hit.id.split("/")])}>
                {hit.id}
              </a>
              <span className="version">v{hit.version}</span>
              <ShortDigest digest={hit.digest} />
              <span className="hit-score" title="Score, with the best hit's as full bar">
                <Meter share={best > 0 ? hit.score / best : 0} />
                <span className="hit-number">{hit.score.toFixed(2)}</span>
              </span>
            </div>
            <p className="clamp muted">{hit.description}</p>
          </li>
        ))}
      </ol>
    </div>
  );
}
