/**
 * How long to wait before a reconnection. Pure: random numbers are arguments.
 */

const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 10_000;

/**
 * Lower limit for the bound of the first retry. It spreads the listeners of a restarting relay: its accept queue can
 * take a crowd that arrives over 0.3 s (docs/performance.md).
 */
const SHORTEST_FIRST_RETRY_MS = 300;

/** The part of the buffered audio that may play before the first retry. The rest covers the handshake. */
const PATIENCE = 0.5;

/**
 * Returns the wait before an attempt: a random part of a bound that doubles with each attempt (full jitter). So the
 * listeners of a restarting relay do not all return at once.
 *
 * @param {number} attempt 0 for the first attempt after a good connection.
 * @param {number} random Between 0 and 1.
 * @param {number} bufferedMs Audio left to play. If possible, the first attempt comes before it runs out. Infinity if
 *   waiting loses nothing.
 */
export function retryDelayMs(attempt, random, bufferedMs = Infinity) {
  if (attempt === 0) {
    return random * Math.min(FIRST_RETRY_MS, Math.max(SHORTEST_FIRST_RETRY_MS, PATIENCE * bufferedMs));
  }
  return random * Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** attempt);
}

/**
 * Returns the wait that a relay requested in `goaway`, plus a random part, because all its clients get the same value.
 *
 * @param {number} afterMs `reconnect_after_ms`.
 * @param {number} random Between 0 and 1.
 */
export function goawayDelayMs(afterMs, random) {
  return Math.max(0, afterMs) + random * FIRST_RETRY_MS;
}
