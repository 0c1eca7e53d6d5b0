/**
 * The Worker of the broadcasting page. It takes messages and answers with the news of an `Uplink`.
 *
 * @typedef {{type: "mute", on: boolean} | {type: "pause"} | {type: "end"} | {type: "close"}} Order
 * @typedef {{type: "open", frames: MessagePort} & import("./uplink.js").Target} Opening The first message; `frames` gives
 *   frames of audio.
 */

import { Uplink } from "./uplink.js";

/** A Worker that ends takes its socket with it, and the closing handshake needs a moment. */
const LINGER_MS = 2000;

/** @type {Uplink | null} */
let uplink = null;

/** @param {MessageEvent<Opening | Order>} event */
function obey({ data }) {
  switch (data.type) {
    case "open":
      uplink = new Uplink(data, (news) => postMessage(news));
      data.frames.onmessage = (event) => uplink?.push(event.data);
      break;
    case "mute":
      uplink?.mute(data.on);
      break;
    case "pause":
      uplink?.pause();
      break;
    case "end":
      uplink?.end();
      break;
    case "close":
      uplink?.close();
      setTimeout(() => close(), LINGER_MS);
      break;
  }
}

addEventListener("message", obey);
