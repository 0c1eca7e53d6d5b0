/**
 * The Worker of the broadcasting page.
 *
 * Messages to it: {type: "open", address, protocols, bytesPerSecond, frames}, where `frames` is a MessagePort that
 * gives frames of audio; then {type: "mute", on}, {type: "pause"}, {type: "end"} or {type: "close"}. Messages from it: the reports of an `Uplink`.
 */

import { Uplink } from "./uplink.js";

/** A Worker that ends takes its socket with it, and the closing handshake needs a moment. */
const LINGER_MS = 2000;

let uplink = null;

addEventListener("message", ({ data }) => {
  switch (data.type) {
    case "open":
      uplink = new Uplink(data, (news) => postMessage(news));
      data.frames.onmessage = (event) => uplink.push(event.data);
      break;
    case "mute":
      uplink.mute(data.on);
      break;
    case "pause":
      uplink.pause();
      break;
    case "end":
      uplink.end();
      break;
    case "close":
      uplink.close();
      setTimeout(() => close(), LINGER_MS);
      break;
  }
});
