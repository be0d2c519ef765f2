import { ApiError } from "../../api/client";
import type { AuditHead } from "../../api/types";
import { useAudit } from "../../hooks/useAudit";
import { useRoute } from "../../hooks/useRoute";
import { CopyButton } from "../../ui/badges";
import { Figure } from "../../ui/figure";
import { count, plural, time } from "../../ui/format";
import { Page } from "../../ui/page";
import { Empty, QueryView, ShowOlder } from "../../ui/states";
import { Table } from "../../ui/table";
import { AuditFilters } from "./auditFilters";
import { COLUMNS, RecordRow } from "./recordRow";
import { filterOf } from "./words";

const LEAD = "Who changed what, and when. Records are chained by their hashes, and nothing removes one.";

export function AuditScreen() {
  const { params } = useRoute();
  const filter = filterOf((name) => params.get(name));
  const { head, records } = useAudit(filter);
  if (records.error instanceof ApiError && records.error.code === "insufficient_scope") {
    return (
      <Page title="Audit" lead={LEAD}>
        <div className="panel">
          <Empty title="This key may not read the audit log">
            It takes a key with the scope <code>admin</code>.
          </Empty>
        </div>
      </Page>
    );
  }
  const isFiltered = Object.keys(filter).length > 0;
  return (
    <Page title="Audit" lead={LEAD} updatedAt={records.dataUpdatedAt}>
      <QueryView query={head} rows={2}>
        {(data) => <Head head={data} />}
      </QueryView>
      <AuditFilters filter={filter} />
      <div className={records.isPlaceholderData ? "panel waiting" : "panel"}>
        <QueryView
          query={records}
          rows={8}
          isEmpty={({ pages }) => pages.every((page) => page.items.length === 0)}
          empty={<Empty title={isFiltered ? "Nothing matches" : "No change has been made yet"} />}
        >
          {({ pages }) => (
            <Table columns={COLUMNS}>
              {pages
                .flatMap((page) => page.items)
                .map((record) => (
                  <RecordRow key={record.seq} record={record} filter={filter} />
                ))}
            </Table>
          )}
        </QueryView>
        <ShowOlder query={records} />
        {!records.hasNextPage && records.data?.pages.at(-1)?.next_cursor && (
          <p className="footnote">There are older ones; a time in the field Until shows them.</p>
        )}
      </div>
    </Page>
  );
}

const KEYED = "Who can only write the database cannot make these hashes.";
const NOT_KEYED =
  "Without a key the chain shows mistakes, but not changes by somebody who makes all later hashes anew.";

function Head({ head: { seq, hash, sealed_at, keyed, lag } }: { head: AuditHead }) {
  const waiting = lag > 0 ? `${plural(lag, "change")} not sealed yet` : "";
  if (seq === null || hash === null) return waiting && <p className="muted">{waiting}</p>;
  const sealed = `sealed ${time(sealed_at ?? "")}`;
  return (
    <dl className="figures">
      <Figure name="Newest record" value={count(seq)} detail={waiting ? `${sealed} · ${waiting}` : sealed} />
      <Figure
        name="Its hash"
        value={
          <CopyButton text={`${seq}:${hash}`} label="Copy the head as SEQ:HASH">
            {hash.slice(0, 12)}
          </CopyButton>
        }
        detail="Copied as SEQ:HASH, to be kept elsewhere for skillwire audit verify --head."
      />
      <Figure name="Sealed with a key" value={keyed ? "yes" : "no"} detail={keyed ? KEYED : NOT_KEYED} />
    </dl>
  );
}
