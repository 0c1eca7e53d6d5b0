/**
 * What a close code asks of a client. Pure; the source is the table of docs/protocol.md.
 *
 * 4000 to 4499 ask for a reconnect, 4500 to 4999 forbid it; so do the codes of RFC 6455 that mean that the same
 * thing would happen again. Everything else, 1006 (a connection that broke) first of all, is tried again.
 */

export const SESSION_ENDED = 1000;
export const CONNECTION_BROKE = 1006;
export const TOKEN_EXPIRED = 4001;
export const NOT_ALLOWED = 4502;
export const BAD_REQUEST = 4504;

const FINAL_CODES = new Set([1000, 1002, 1003, 1007, 1008, 1009]);

/**
 * Tells whether a close forbids to connect again.
 *
 * @param {number} code A WebSocket close code.
 */
export function isFinal(code) {
  return FINAL_CODES.has(code) || (code >= 4500 && code <= 4999);
}

const MISUNDERSTANDING = "This browser and the relay do not understand each other. Reload the page.";

const SENTENCES = new Map([
  [1000, "The session has ended."],
  [1002, MISUNDERSTANDING],
  [1003, MISUNDERSTANDING],
  [1007, MISUNDERSTANDING],
  [1008, "The relay closed the connection because of something this page sent. Reload the page."],
  [1009, "The relay closed the connection because a message was too big. Reload the page."],
  [4500, "Another broadcaster took over this channel."],
  [4501, "The operator of the relay closed this connection."],
  [4502, "The relay did not accept the key for this session."],
  [4503, "This channel has a broadcaster already."],
  [4504, "The relay does not understand this page's address."],
]);

/**
 * Says why a connection ended for good, in a sentence for a person.
 *
 * @param {number} code The close code.
 * @param {string} told What the relay itself said, or an empty string; it wins over our own words.
 */
export function closeSentence(code, told) {
  return told || (SENTENCES.get(code) ?? `The relay closed the connection (code ${code}).`);
}
