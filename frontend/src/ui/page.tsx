import type { ReactNode } from "react";
import { useLive } from "../hooks/useLive";
import { time } from "./format";

interface PageProps {
  title: string;
  lead: string;
  /** When what is shown was read; 0 or undefined while there is nothing. */
  updatedAt?: number;
  tools?: ReactNode;
  children: ReactNode;
}

export function Page({ title, lead, updatedAt, tools, children }: PageProps) {
  return (
    <section className="page" aria-labelledby="page-title">
      <header className="page-head">
        <div>
          <h1 id="page-title">{title}</h1>
          <p className="lead">{lead}</p>
        </div>
        <div className="page-tools">
          {tools}
          <Freshness updatedAt={updatedAt ?? 0} />
        </div>
      </header>
      {children}
    </section>
  );
}

function Freshness({ updatedAt }: { updatedAt: number }) {
  const { state } = useLive();
  if (!updatedAt) return null;
  const isCurrent = state === "live";
  return (
    <span className={isCurrent ? "freshness" : "freshness freshness-stale"}>
      {isCurrent ? "as of" : "old, of"} <time>{time(updatedAt)}</time>
    </span>
  );
}

export function Panel({ title, aside, children }: { title: string; aside?: ReactNode; children: ReactNode }) {
  return (
    <section className="panel">
      <header className="panel-head">
        <h2>{title}</h2>
        {aside && <div className="panel-aside">{aside}</div>}
      </header>
      {children}
    </section>
  );
}
