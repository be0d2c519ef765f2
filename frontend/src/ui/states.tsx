import type { UseInfiniteQueryResult } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { ApiError } from "../api/client";
import { Icon } from "./icons";

function Loading({ rows = 4 }: { rows?: number }) {
  return (
    <div className="skeleton" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, row) => `line-${row}`).map((line) => (
        <span key={line} className="skeleton-line" />
      ))}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <p className="empty-title">{title}</p>
      {children && <div className="empty-hint">{children}</div>}
    </div>
  );
}

export function ErrorNotice({ error, retry }: { error: Error; retry?: () => void }) {
  const isApi = error instanceof ApiError;
  return (
    <div className="notice notice-bad" role="alert">
      <Icon name="error" />
      <div className="notice-body">
        <p>{error.message}</p>
        {isApi && (
          <p className="notice-origin">
            <code>{error.code}</code>
            {error.requestId && <span> · request {error.requestId}</span>}
          </p>
        )}
      </div>
      {retry && (
        <button type="button" className="button" onClick={retry}>
          Retry
        </button>
      )}
    </div>
  );
}

interface QueryLike<T> {
  data: T | undefined;
  error: Error | null;
  refetch: () => unknown;
}

interface QueryViewProps<T> {
  query: QueryLike<T>;
  isEmpty?: (data: T) => boolean;
  empty?: ReactNode;
  rows?: number;
  children: (data: T) => ReactNode;
}

/**
 * The states of whatever was asked for: loading, error with retry, empty, there. Data that could
 * not be refreshed stays on the screen under the error.
 */
export function QueryView<T>({ query, isEmpty, empty, rows, children }: QueryViewProps<T>) {
  const { data, error } = query;
  const notice = error && <ErrorNotice error={error} retry={() => query.refetch()} />;
  if (data === undefined) return notice ?? <Loading {...(rows === undefined ? {} : { rows })} />;
  return (
    <>
      {notice}
      {isEmpty?.(data) ? empty : children(data)}
    </>
  );
}

type Pages = Pick<UseInfiniteQueryResult, "hasNextPage" | "isFetchingNextPage" | "fetchNextPage">;

/** The button below what is read page by page; nothing at its end. */
export function ShowOlder({ query }: { query: Pages }) {
  if (!query.hasNextPage) return null;
  return (
    <button
      type="button"
      className="button more"
      disabled={query.isFetchingNextPage}
      onClick={() => query.fetchNextPage()}
    >
      {query.isFetchingNextPage ? "Loading" : "Show older"}
    </button>
  );
}
