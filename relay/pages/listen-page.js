/** The listening page: connects a `Player` to the elements of listen.html. */

import { Player } from "./player.js";
import { TARGET_SECONDS } from "./playout.js";
import { readPagePath, streamAddress } from "./wire.js";

const METER_SAMPLES = 1024;
const VOLUME_KEY = "relay.volume";

const WORDS = {
  idle: "Press Play to listen.",
  connecting: "Connecting…",
  waiting: "Waiting for the broadcaster. The sound starts by itself.",
  buffering: "Buffering…",
  playing: "Playing live.",
  reconnecting: "Connection lost. Connecting again…",
  blocked: "The browser holds the sound back. Press Play again.",
};

const STOPPED = new Set(["idle", "blocked", "ended", "failed"]);

const element = (id) => document.getElementById(id);
const main = document.querySelector("main");
const address = readPagePath(location.pathname);
const player = new Player(streamAddress("listen", address, location));

/** For tests and the curious: the player of this page, see player.js. */
Object.defineProperty(window, "relayPlayer", { value: player });

element("session").textContent = address.session;
element("channel").textContent = address.channel ?? "";
element("channel").hidden = address.channel === null;
document.title = `${address.session} – relay`;

element("play").addEventListener("click", () => {
  if (STOPPED.has(player.state)) {
    player.play();
  } else {
    player.stop();
  }
});

player.addEventListener("statechange", () => {
  main.dataset.state = player.state;
  element("play-label").textContent = STOPPED.has(player.state) ? "Play" : "Stop";
  element("status").textContent = player.sentence || WORDS[player.state];
  showReport();
  if (player.state === "playing") {
    startDrawing();
  }
});

player.addEventListener("report", showReport);

let shownFill = 0;

function showReport() {
  const { report, format } = player;
  const running = player.context !== null;
  const fill = Math.min(1, report.heldSeconds / TARGET_SECONDS);
  // The level is a saw-tooth of the frames' length; a person wants to see where it tends to.
  shownFill = running ? shownFill + 0.3 * (fill - shownFill) : 0;
  main.style.setProperty("--fill", shownFill.toFixed(3));
  element("buffer").textContent = running ? `${report.heldSeconds.toFixed(1)} s` : "–";
  element("interruptions").textContent = running ? String(player.interruptions) : "–";
  element("format").textContent = format ? describe(format) : "–";
}

function describe({ rate, channels }) {
  return `${rate / 1000} kHz ${channels === 2 ? "stereo" : "mono"}`;
}

let meter = null;
let drawing = false;

/** Lets the halo around the button follow the loudness for as long as sound is played. */
function startDrawing() {
  if (!drawing && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
    drawing = true;
    draw(new Float32Array(METER_SAMPLES), 0);
  }
}

function draw(samples, shown) {
  if (player.state !== "playing") {
    drawing = false;
    main.style.setProperty("--loudness", "0");
    return;
  }
  if (meter?.context !== player.context) {
    meter = new AnalyserNode(player.context, { fftSize: METER_SAMPLES });
    player.output.connect(meter);
  }
  meter.getFloatTimeDomainData(samples);
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
  const loudness = Math.min(1, Math.max(0, 1 + Math.log10(power + 1e-9) / 4));
  const next = shown + (loudness > shown ? 0.5 : 0.08) * (loudness - shown);
  main.style.setProperty("--loudness", next.toFixed(3));
  requestAnimationFrame(() => draw(samples, next));
}

const volume = element("volume");

function applyVolume() {
  // Loudness is felt about as the square of the gain that a slider would give.
  player.volume = (volume.valueAsNumber / 100) ** 2;
  element("volume-shown").textContent = `${volume.value} %`;
}

volume.value = readStoredVolume();
volume.addEventListener("input", () => {
  applyVolume();
  storeVolume(volume.value);
});
applyVolume();

// Storage can be forbidden by the person; then the volume is just not remembered.
function readStoredVolume() {
  try {
    return localStorage.getItem(VOLUME_KEY) ?? "100";
  } catch {
    return "100";
  }
}

function storeVolume(value) {
  try {
    localStorage.setItem(VOLUME_KEY, value);
  } catch {
    // Not remembered.
  }
}
