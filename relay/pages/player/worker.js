/**
 * The Worker: one `Session` at a time, and messages between it and the page.
 *
 * From the page: {type: "play", run, request}, {type: "port", port}, {type: "running", isRunning}, {type: "speaker", ms},
 * {type: "latency", preset}, {type: "token", token}, {type: "switch", channel}, {type: "stop"}. What goes back has the
 * `run` of its "play", so that the page knows what is from a run that is over.
 */

import { Session } from "./session.js";

let session = null;

const actions = {
  play({ run, request }) {
    session?.stop();
    session = new Session({ request, tell: (message) => postMessage({ run, ...message }) });
    session.start();
  },
  port: ({ port }) => session?.setPort(port),
  running: ({ isRunning }) => session?.setRunning(isRunning),
  speaker: ({ ms }) => session?.setSpeakerLatency(ms),
  latency: ({ preset }) => session?.setLatency(preset),
  token: ({ token }) => session?.setToken(token),
  switch: ({ channel }) => session?.switchChannel(channel),
  stop() {
    session?.stop();
    session = null;
  },
};

onmessage = ({ data }) => actions[data.type](data);
