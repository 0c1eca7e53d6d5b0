/** Reads the attributes of a `<relay-player>`. */

import { isLatency } from "./target-delay.js";
import { isKey, isName } from "./wire.js";

const WEB = new Set(["http:", "https:", "ws:", "wss:"]);

/** @typedef {Required<Omit<import("./types.js").RelayPlayerOptions, "volume" | "codec">> & {url: string}} Wanted */

/**
 * Reads the options of a `RelayPlayer` from an element. `src` is the address of a relay or of its listening page, and
 * its fragment may contain a token.
 *
 * @param {HTMLElement} element
 * @returns {{problem: import("./types.js").PlayerProblem | null, wanted: Wanted | null}} `wanted` is null if there is a
 *   problem or if the element names no session.
 */
export function readAttributes(element) {
  const src = element.getAttribute("src");
  const source = parse(src ?? "/", element.baseURI);
  if (source === null) {
    return { problem: "address", wanted: null };
  }
  const found = source.pathname.match(/^(.*?)\/(?:v1\/)?listen\/([^/]+)(?:\/([^/]+))?\/?$/);
  const path = (found?.[1] ?? source.pathname).replace(/\/+$/, "");
  const scheme = ["https:", "wss:"].includes(source.protocol) ? "wss:" : "ws:";
  const url = `${scheme}//${source.host}${path}`;
  const session = element.getAttribute("session") ?? found?.[2];
  const channel = element.getAttribute("channel") ?? found?.[3] ?? "main";
  const token = element.getAttribute("token") || new URLSearchParams(source.hash.slice(1)).get("token") || null;
  const latency = knownLatency(element.getAttribute("latency"));
  const saveData = readSwitch(element.getAttribute("save-data"));
  if (session === undefined ? src !== null : !isName(session)) {
    return { problem: "session", wanted: null };
  }
  if (!isName(channel)) {
    return { problem: "channel", wanted: null };
  }
  if (token !== null && !isKey(token)) {
    return { problem: "token", wanted: null };
  }
  return { problem: null, wanted: session === undefined ? null : { url, session, channel, token, latency, saveData } };
}

/**
 * @param {string} address
 * @param {string} base
 * @returns {URL | null} null if the address is not a valid HTTP or WebSocket address.
 */
function parse(address, base) {
  try {
    const url = new URL(address, base);
    return WEB.has(url.protocol) ? url : null;
  } catch {
    return null;
  }
}

/** @param {string | null} preset */
function knownLatency(preset) {
  return isLatency(preset) ? preset : "balanced";
}

/**
 * Reads an attribute that is on, off or absent.
 *
 * @param {string | null} value
 * @returns {boolean | null} null if it is absent.
 */
function readSwitch(value) {
  return value === null ? null : !["false", "off"].includes(value.trim().toLowerCase());
}
