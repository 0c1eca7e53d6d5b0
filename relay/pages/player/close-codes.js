/**
 * What a close code asks of a client. Pure. The table is that of relay/vocabulary/errors.py; `python -m
 * scripts.generate` writes it.
 *
 * 4000 to 4499 ask for a reconnect, 4500 to 4999 forbid it; so do the codes of RFC 6455 that mean that the same
 * thing would happen again. Everything else, 1006 (a connection that broke) first of all, is tried again.
 */

// begin generated: close codes
export const SESSION_ENDED = 1000;
export const GOING_AWAY = 1001;
export const NOT_WEBSOCKET = 1002;
export const NOT_TAKEN = 1003;
export const CONNECTION_BROKE = 1006;
export const NOT_UTF8 = 1007;
export const POLICY = 1008;
export const TOO_BIG = 1009;
export const INTERNAL = 1011;
export const RESTARTING = 1012;
export const TOKEN_EXPIRED = 4001;
export const TAKEN_OVER = 4500;
export const DISCONNECTED = 4501;
export const NOT_ALLOWED = 4502;
export const CHANNEL_BUSY = 4503;
export const BAD_REQUEST = 4504;

const FINAL_CODES = new Set([SESSION_ENDED, NOT_WEBSOCKET, NOT_TAKEN, NOT_UTF8, POLICY, TOO_BIG]);

const SENTENCES = new Map([
  [SESSION_ENDED, "The session has ended."],
  [NOT_WEBSOCKET, "A protocol error occurred between this page and the relay. Reload the page."],
  [NOT_TAKEN, "A protocol error occurred between this page and the relay. Reload the page."],
  [NOT_UTF8, "A protocol error occurred between this page and the relay. Reload the page."],
  [POLICY, "The relay closed the connection because of something this page sent. Reload the page."],
  [TOO_BIG, "The relay closed the connection because a message was too big. Reload the page."],
  [TAKEN_OVER, "Another broadcaster took over this channel."],
  [DISCONNECTED, "The operator of the relay closed this connection."],
  [NOT_ALLOWED, "The relay did not accept the key for this session."],
  [CHANNEL_BUSY, "This channel already has a broadcaster."],
  [BAD_REQUEST, "The relay does not accept this page's address."],
]);
// end generated

/**
 * Tells whether a close forbids to connect again.
 *
 * @param {number} code A WebSocket close code.
 */
export function isFinal(code) {
  return FINAL_CODES.has(code) || (code >= 4500 && code <= 4999);
}

/**
 * Says why a connection ended for good, in a sentence for a person.
 *
 * @param {number} code The close code.
 * @param {string} told What the relay itself said, or an empty string; it wins over our own words.
 */
export function closeSentence(code, told) {
  return told || (SENTENCES.get(code) ?? `The relay closed the connection (code ${code}).`);
}
