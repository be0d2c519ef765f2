import { QueryClient } from "@tanstack/react-query";
import { Access } from "./api/access";
import { ApiClient, ApiError } from "./api/client";
import { type Queries, queriesOf } from "./api/queries";
import { applyEvent, heartbeatKeys, resetKeys } from "./live/eventEffects";
import { EventStream } from "./live/eventStream";
import { FleetStats } from "./live/fleetStats";
import { QueryRefresher } from "./live/queryRefresher";
import { type OpenSocket, RpcClient } from "./live/rpcClient";
import { sseTransport } from "./live/sseTransport";
import { websocketTransport } from "./live/websocketTransport";

const TOPICS = ["skills", "tools", "stats", "health", "cache"];
const RETRIES_MAX = 1;

/** Everything below the screens, made once per page and handed down by `ServicesProvider`. */
export interface Services {
  access: Access;
  api: ApiClient;
  queries: Queries;
  queryClient: QueryClient;
  rpc: RpcClient;
  stream: EventStream;
  fleet: FleetStats;
}

export function makeServices(
  openSocket: OpenSocket = (url) => new WebSocket(url) as ReturnType<OpenSocket>,
): Services {
  const access = new Access();
  const api = new ApiClient(access);
  const queryClient = makeQueryClient();
  const refresher = new QueryRefresher(queryClient);
  const rpc = new RpcClient(openSocket);
  const fleet = new FleetStats();
  const stream = new EventStream({
    topics: TOPICS,
    websocket: websocketTransport(rpc, websocketUrl),
    sse: sseTransport(sseUrl),
    ticket: () => api.ticket(),
    onEvent: (event) => {
      fleet.apply(event);
      refresher.request(applyEvent(queryClient, event));
    },
    onSubscribed: () => fleet.forget(),
    onReset: () => refresher.request(resetKeys),
    onHeartbeat: () => refresher.request(heartbeatKeys),
  });
  return { access, api, queries: queriesOf(api), queryClient, rpc, stream, fleet };
}

function makeQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        // The live stream says when something is out of date; until it does, what was read holds.
        staleTime: 60_000,
        refetchOnWindowFocus: false,
        // The server is often on this very machine: no network does not mean no answer.
        networkMode: "always",
        retry: (failures, error) => failures < RETRIES_MAX && isWorthRepeating(error),
      },
      mutations: { networkMode: "always" },
    },
  });
}

function isWorthRepeating(error: Error): boolean {
  return !(error instanceof ApiError) || error.status === 0 || error.status >= 500;
}

function websocketUrl(ticket: string | null): string {
  const url = new URL("/ws", window.location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (ticket) url.searchParams.set("ticket", ticket);
  return url.href;
}

function sseUrl(topics: readonly string[], since: string | null, ticket: string | null): string {
  const url = new URL("/events", window.location.href);
  url.searchParams.set("topics", topics.join(","));
  if (since) url.searchParams.set("since", since);
  if (ticket) url.searchParams.set("ticket", ticket);
  return url.href;
}
