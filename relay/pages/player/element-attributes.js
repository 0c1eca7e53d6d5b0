/** What the attributes of a `<relay-player>` ask for. */

import { isLatency } from "./target-delay.js";
import { isKey, isName } from "./wire.js";

const WEB = new Set(["http:", "https:", "ws:", "wss:"]);

/**
 * Reads the options of a `RelayPlayer` from an element: `src` may be a relay, or the address of its listening page, with a
 * token behind its #.
 *
 * @returns {object} with a `problem`, a code of the `error` event, where they can not be; without a `session` where none is named.
 */
export function readAttributes(element) {
  const src = element.getAttribute("src");
  const source = parse(src ?? "/", element.baseURI);
  if (source === null) {
    return { problem: "address" };
  }
  const found = source.pathname.match(/^(.*?)\/(?:v1\/)?listen\/([^/]+)(?:\/([^/]+))?\/?$/);
  const path = (found ? found[1] : source.pathname).replace(/\/+$/, "");
  const scheme = ["https:", "wss:"].includes(source.protocol) ? "wss:" : "ws:";
  const wanted = {
    url: `${scheme}//${source.host}${path}`,
    session: element.getAttribute("session") ?? found?.[2],
    channel: element.getAttribute("channel") ?? found?.[3] ?? "main",
    token: element.getAttribute("token") || new URLSearchParams(source.hash.slice(1)).get("token") || null,
    latency: knownLatency(element.getAttribute("latency")),
  };
  return { ...wanted, problem: problemOf(wanted, src) };
}

function problemOf({ session, channel, token }, src) {
  if (session === undefined ? src !== null : !isName(session)) {
    return "session";
  }
  if (!isName(channel)) {
    return "channel";
  }
  return token === null || isKey(token) ? null : "token";
}

/** @returns {URL | null} null for what is no address of the web. */
function parse(address, base) {
  try {
    const url = new URL(address, base);
    return WEB.has(url.protocol) ? url : null;
  } catch {
    return null;
  }
}

function knownLatency(preset) {
  return isLatency(preset) ? preset : "balanced";
}
