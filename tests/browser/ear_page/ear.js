// A page with only a player, a button, and a tap on the player's output.
//
// The page's query contains the player's options. Times are seconds of the machine's wall clock.

import { RelayPlayer } from "/assets/player/index.js";

const CLOCK_INTERVAL_MS = 100;

const chunks = [];
const events = [];
const clocks = [];
const stalls = [];
let tap = null;

const now = () => (performance.timeOrigin + performance.now()) / 1000;

const player = new RelayPlayer(Object.fromEntries(new URLSearchParams(location.search)));

async function attach() {
  const { context, output } = player;
  if (tap !== null || context === null || output === null) {
    return;
  }
  tap = "loading";
  await context.audioWorklet.addModule("/assets/test-tap.js");
  tap = new AudioWorkletNode(context, "test-tap", { outputChannelCount: [2] });
  tap.port.onmessage = ({ data }) => chunks.push(data);
  output.connect(tap).connect(context.destination);
  setInterval(() => {
    const { contextTime, performanceTime } = context.getOutputTimestamp();
    if (contextTime > 0) {
      clocks.push([contextTime, (performance.timeOrigin + performanceTime) / 1000]);
    }
  }, CLOCK_INTERVAL_MS);
}

player.addEventListener("statechange", () => {
  events.push({ at: now(), type: "state", state: player.state });
  document.body.dataset.state = player.state;
  attach();
});
player.addEventListener("stats", (event) =>
  events.push({ at: now(), type: "stats", ...(event.detail ?? player.stats) }),
);

document.querySelector("button").addEventListener("click", (event) => {
  events.push({ at: (performance.timeOrigin + event.timeStamp) / 1000, type: "click" });
  player.play();
  attach();
});

// The page checks this itself: code that a test evaluates counts as a user gesture, which allows sound.
const probe = new AudioContext();
events.push({ at: now(), type: "before any click", state: probe.state });
probe.close();

new Worker("/assets/test-pulse.js").onmessage = ({ data }) => stalls.push(data);

function toText(arrays) {
  let text = "";
  for (const array of arrays) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    for (let i = 0; i < bytes.length; i += 8192) {
      text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    }
  }
  return btoa(text);
}

globalThis.ear = {
  player,
  /** Returns the recording so far. */
  async recording() {
    // The clocks relate samples to the times at which they are heard, so wait for the first one.
    while (clocks.length === 0) {
      await new Promise((resolve) => setTimeout(resolve, CLOCK_INTERVAL_MS));
    }
    const flushed = new Promise((resolve) => {
      tap.port.onmessage = ({ data }) => resolve(chunks.push(data));
    });
    tap.port.postMessage("flush");
    await flushed;
    tap.port.onmessage = ({ data }) => chunks.push(data);
    return {
      rate: player.context.sampleRate,
      frames: chunks.map(({ frame }) => frame),
      left: toText(chunks.map(({ left }) => left)),
      right: toText(chunks.map(({ right }) => right)),
      walls: toText(chunks.map(({ walls }) => walls)),
      events,
      clocks,
      stalls,
    };
  },
};
