/** A glance at a session before anybody listens: which channels it has, and whether they are live. */

import { isFinal } from "./player/close-codes.js";
import { PROTOCOL, TOKEN_PREFIX, readMessage } from "./player/wire.js";

const LONGEST_MS = 5000;

/**
 * Connects as a listener, takes the greeting, and leaves.
 *
 * @param {string} address Of a listener's WebSocket.
 * @param {string | null} token
 * @returns {Promise<{hello: object | null, refusal: number | null}>} the relay's `hello`, or the close code by which
 *   it refuses; both null when there was no answer, which the player will tell better.
 */
export function glance(address, token) {
  return new Promise((resolve) => {
    const socket = new WebSocket(address, token ? [PROTOCOL, TOKEN_PREFIX + token] : [PROTOCOL]);
    const leave = (result) => {
      clearTimeout(timer);
      socket.onmessage = null;
      socket.onclose = null;
      socket.close();
      resolve({ hello: null, refusal: null, ...result });
    };
    const timer = setTimeout(() => leave({}), LONGEST_MS);
    socket.onmessage = ({ data }) => {
      const message = typeof data === "string" ? readMessage(data) : null;
      if (message?.type === "hello") {
        leave({ hello: message });
      }
    };
    socket.onclose = ({ code }) => leave(isFinal(code) ? { refusal: code } : {});
  });
}
