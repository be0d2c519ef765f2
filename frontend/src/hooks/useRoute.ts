import { useSyncExternalStore } from "react";

export interface Route {
  /** Decoded path segments after `#/`; empty for the first screen. */
  path: string[];
  params: URLSearchParams;
}

function watch(onChange: () => void): () => void {
  window.addEventListener("hashchange", onChange);
  return () => window.removeEventListener("hashchange", onChange);
}

function parseRoute(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return { path: path.split("/").filter(Boolean).map(decoded), params: new URLSearchParams(search) };
}

/** A hand-typed `%` is not an escape; it stands for itself. */
function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** Where the user is, from the part after `#`: the server needs no route of its own for any screen. */
export function useRoute(): Route {
  return parseRoute(useSyncExternalStore(watch, () => window.location.hash));
}

export function hrefOf(path: string[], params: Record<string, string> = {}): string {
  const search = new URLSearchParams(params).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

export function navigate(href: string, { replace = false } = {}): void {
  if (replace) window.location.replace(href);
  else window.location.hash = href;
}
