/**
 * The Worker of the broadcasting page. It takes messages and answers with the news of an `Uplink`.
 *
 * @typedef {{type: "mute", on: boolean} | {type: "pause"} | {type: "end"} | {type: "close"}} Order
 * @typedef {{type: "open", frames: MessagePort} & import("./uplink.js").Target} Opening The first message; `frames` gives
 *   frames of audio.
 */

import { encodesOpus } from "./coding.js";
import { Uplink } from "./uplink.js";

/** A Worker that ends takes its socket with it, and the closing handshake needs a moment. */
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
