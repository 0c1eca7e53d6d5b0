/**
 * The Worker of the broadcasting page. It passes the page's orders to an `Uplink` and posts the uplink's news back.
 *
 * @typedef {{type: "mute", on: boolean} | {type: "pause"} | {type: "end"} | {type: "close"}} Order
 * @typedef {{type: "open", frames: MessagePort} & import("./uplink.js").Target} Opening The first message. `frames`
 *   delivers the frames of audio.
 */

import { encodesOpus } from "./coding.js";
import { Uplink } from "./uplink.js";

/** Time for the WebSocket's closing handshake. A Worker that closes drops its socket at once. */
const LINGER_MS = 2000;

/** @type {Uplink | null} */
let uplink = null;

/** Messages are obeyed one after the other. The first one takes a moment, for the trial of the encoder. */
let turn = Promise.resolve();

/** @param {Opening | Order} message */
async function obey(message) {
  switch (message.type) {
    case "open":
      uplink = new Uplink(message, { hasOpus: await encodesOpus() }, (news) => postMessage(news));
      message.frames.onmessage = ({ data }) => uplink?.push(data);
      break;
    case "mute":
      uplink?.mute(message.on);
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

addEventListener("message", ({ data }) => {
  turn = turn.then(() => obey(data));
});
