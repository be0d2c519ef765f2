const DELAY_MS_MIN = 500;
const DELAY_MS_MAX = 20_000;

/**
 * Full jitter: the wait before attempt `attempt` (0 is the first retry) is drawn from the whole
 * interval, so that clients cut off together do not come back together.
 */
export function backoffMs(attempt: number, random: () => number = Math.random): number {
  const ceiling = Math.min(DELAY_MS_MAX, DELAY_MS_MIN * 2 ** Math.min(attempt + 1, 16));
  return DELAY_MS_MIN + random() * (ceiling - DELAY_MS_MIN);
}
