/** The Worker: runs one `Session` at a time and passes messages between it and the page; see messages.d.ts. */

import { findDecoders } from "./opus-support.js";
import { Session } from "./session.js";

/** The search starts at once, so that its result is ready when the person presses Play. */
const found = findDecoders();

/** @type {Session | null} */
let session = null;

/** @param {import("./messages.js").PageMessage} message */
function obey(message) {
  switch (message.type) {
    case "play":
      play(message.run, message.request);
      break;
    case "port":
      session?.setPort(message.port);
      break;
    case "running":
      session?.setRunning(message.isRunning);
      break;
    case "speaker":
      session?.setSpeakerLatency(message.ms);
      break;
    case "latency":
      session?.setLatency(message.preset);
      break;
    case "save-data":
      session?.setSaveData(message.isOn);
      break;
    case "codec":
      session?.setCodec(message.codec);
      break;
    case "token":
      session?.setToken(message.token);
      break;
    case "switch":
      session?.switchChannel(message.channel);
      break;
    case "stop":
      session?.stop();
      session = null;
      break;
  }
}

/**
 * @param {number} run
 * @param {import("./messages.js").Request} request
 */
function play(run, request) {
  session?.stop();
  const started = new Session({ request, tell: (message) => postMessage({ run, ...message }) });
  started.start();
  session = started;
  found.then((decoders) => started.connect(decoders));
}

addEventListener("message", ({ data }) => obey(data));
