/**
 * How long to wait before connecting again. Pure: chance is an argument.
 */

const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 10_000;

/**
 * The least upper bound of a first retry. Below it a restarting relay would meet all its listeners at once; 0.3 s is
 * what its accept queue takes of a crowd (docs/performance.md).
 */
const SHORTEST_FIRST_RETRY_MS = 300;

/** The part of what is still buffered that may pass before a first retry; the rest is for the handshake. */
const PATIENCE = 0.5;

/**
 * Gives the wait before an attempt: a random part of a bound that doubles (full jitter), so that the listeners of a
 * relay that restarts do not all come back at once.
 *
 * @param {number} attempt 0 for the first one after a good connection.
 * @param {number} random Between 0 and 1.
 * @param {number} bufferedMs What is left to play: the first attempt comes before that is used up, where possible.
 *   Infinity when nothing is lost by waiting.
 */
export function retryDelayMs(attempt, random, bufferedMs = Infinity) {
  if (attempt === 0) {
    return random * Math.min(FIRST_RETRY_MS, Math.max(SHORTEST_FIRST_RETRY_MS, PATIENCE * bufferedMs));
  }
  return random * Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** attempt);
}

/**
 * Gives the wait that a relay asked for in `goaway`, spread a little further, because it tells all of them the same.
 *
 * @param {number} afterMs `reconnect_after_ms`.
 * @param {number} random Between 0 and 1.
 */
export function goawayDelayMs(afterMs, random) {
  return Math.max(0, afterMs) + random * FIRST_RETRY_MS;
}
