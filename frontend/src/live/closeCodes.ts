/**
 * What a WebSocket close code asks of the client.
 *
 * 3000-3499 and 4000-4499 say "reconnect and resume", 3500-3999 and 4500-4999 say "do not come
 * back". Of the protocol's own codes only those that a network or a restart produces reconnect, and 1000:
 * proxies end idle connections with it, and a server that gives no reason has not said "stay away".
 * `notifier/close_codes.py` is the server's side of this table; a test compares the two.
 */
const PROTOCOL_CODES_THAT_RECONNECT: ReadonlySet<number> = new Set([
  1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014,
]);

export function reconnects(code: number): boolean {
  if (code >= 3000 && code < 5000) return code % 1000 < 500;
  return PROTOCOL_CODES_THAT_RECONNECT.has(code);
}
