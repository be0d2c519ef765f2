import { keepPreviousData, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import { keys } from "../api/queries";
import type { AuditFilter } from "../api/types";
import { useServices } from "./useServices";

/** The audit log's head, and its records, newest first; those are read again when the head has moved. */
export function useAudit(filter: AuditFilter) {
  const { queries, queryClient } = useServices();
  const head = useQuery(queries.auditHead());
  const records = useInfiniteQuery({ ...queries.audit(filter), placeholderData: keepPreviousData });
  const seq = head.data?.seq;
  // The first head comes beside the first page, which need not be read twice for it.
  const known = useRef(seq);
  useEffect(() => {
    const isNews = known.current !== undefined && known.current !== seq;
    known.current = seq;
    if (isNews) void queryClient.invalidateQueries({ queryKey: keys.auditRecords });
  }, [seq, queryClient]);
  return { head, records };
}
