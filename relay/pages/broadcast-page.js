/** The broadcasting page: connects a `Broadcaster` and its sources to the elements of broadcast.html. */

import { Broadcaster } from "./broadcaster.js";
import { BROADCAST_FORMAT } from "./capture.js";
import { LevelMeter } from "./level-meter.js";
import { WARNING_SECONDS } from "./send-queue.js";
import { SourceError, openFile, openMicrophone, unsupportedSentence } from "./sources.js";
import { isKey, readPagePath, streamAddress } from "./wire.js";

const NOT_ALLOWED = 4502;
const SILENCE_SHOWN_AFTER_SECONDS = 5;
const PROGRESS_INTERVAL_MS = 500;

const WORDS = {
  idle: "Nobody hears you yet.",
  starting: "Opening the source…",
  connecting: "Connecting…",
  live: "You are live.",
  reconnecting: "No connection to the relay. Trying again…",
  stopping: "Ending…",
};

const STOPPED = new Set(["idle", "failed"]);

const element = (id) => document.getElementById(id);
const main = document.querySelector("main");
const address = readPagePath(location.pathname);
const broadcaster = new Broadcaster(streamAddress("broadcast", address, location, BROADCAST_FORMAT));

/** For tests and the curious: the broadcaster of this page, see broadcaster.js. */
Object.defineProperty(window, "relayBroadcaster", { value: broadcaster });

element("session").textContent = address.session;
element("channel").textContent = address.channel ?? "";
element("channel").hidden = address.channel === null;
document.title = `${address.session} – broadcast – relay`;
element("audience").value = location.origin + location.pathname.replace("/broadcast/", "/listen/");

// A fragment never leaves the browser, so a link can carry the key without any server writing it down.
element("key").value = new URLSearchParams(location.hash.slice(1)).get("key") ?? "";

const unsupported = unsupportedSentence();
if (unsupported) {
  say(unsupported);
  element("go").disabled = true;
} else {
  listDevices();
  navigator.mediaDevices.addEventListener("devicechange", listDevices);
}

element("broadcast").addEventListener("submit", (event) => {
  event.preventDefault();
  if (STOPPED.has(broadcaster.state)) {
    goLive();
  } else {
    broadcaster.stop();
  }
});

function goLive() {
  const key = element("key").value.trim();
  if (key !== "" && !isKey(key)) {
    refuseKey("A broadcast key is 8 to 256 letters, digits or . _ ~ -");
    return;
  }
  if (chosenSource() === "file" && element("file").files.length === 0) {
    say("Choose a file first.");
    element("file").focus();
    return;
  }
  element("key").removeAttribute("aria-invalid");
  broadcaster.start(openSource, key);
}

function openSource(context) {
  if (chosenSource() === "file") {
    return openFile(context, element("file").files[0], () => broadcaster.stop());
  }
  const options = {
    deviceId: element("device").value,
    echoCancellation: element("echo").checked,
    noiseSuppression: element("noise").checked,
    autoGainControl: element("gain").checked,
  };
  const lost = "The microphone is gone. Connect it or choose another one, then press Go live.";
  return openMicrophone(context, options, () => broadcaster.abort(lost));
}

function chosenSource() {
  return element("broadcast").elements.source.value;
}

element("source-choice").addEventListener("change", showPanel);
showPanel();

function showPanel() {
  element("microphone-panel").hidden = chosenSource() !== "microphone";
  element("file-panel").hidden = chosenSource() !== "file";
}

let deviceProblem = "";
let lastChange = Promise.resolve();

for (const id of ["device", "echo", "noise", "gain"]) {
  // One after the other, or the slower of two changes would win over the later one.
  element(id).addEventListener("change", () => (lastChange = lastChange.then(changeMicrophone)));
}

async function changeMicrophone() {
  if (broadcaster.state !== "live" && broadcaster.state !== "reconnecting") {
    return;
  }
  try {
    await broadcaster.changeSource(openSource);
    deviceProblem = "";
  } catch (error) {
    deviceProblem = error instanceof SourceError ? error.message : "The microphone could not be changed.";
  }
}

/** Fills the list of microphones; their names are known only once the person has allowed one. */
async function listDevices() {
  const select = element("device");
  const chosen = select.value;
  const devices = await navigator.mediaDevices.enumerateDevices();
  const named = devices.filter(({ kind, label, deviceId }) => kind === "audioinput" && label && deviceId !== "default");
  select.length = 1;
  for (const { deviceId, label } of named) {
    select.add(new Option(label, deviceId));
  }
  select.value = named.some(({ deviceId }) => deviceId === chosen) ? chosen : "";
}

const meter = new LevelMeter(element("level"), element("level-shown"));
let liveSince = 0;
let progressShownAt = 0;

broadcaster.addEventListener("statechange", () => {
  const { state, sentence, closeCode } = broadcaster;
  const stopped = STOPPED.has(state);
  main.dataset.state = state;
  element("go-label").textContent = stopped ? "Go live" : "Stop";
  element("go").disabled = state === "stopping";
  element("source-choice").disabled = !stopped;
  element("file").disabled = !stopped;
  element("key").disabled = !stopped;
  element("on-air").hidden = state !== "live";
  say(sentence || WORDS[state]);
  if (state === "starting") {
    liveSince = 0;
    deviceProblem = "";
  } else if (state === "live") {
    liveSince ||= performance.now();
    listDevices();
    keepScreenOn();
  } else if (stopped) {
    warn("");
    meter.reset();
    screenLock?.release();
    screenLock = null;
  }
  if (closeCode === NOT_ALLOWED) {
    refuseKey(sentence);
  }
});

function say(sentence) {
  element("status").textContent = sentence;
}

function warn(sentence) {
  if (element("warning").textContent !== sentence) {
    element("warning").textContent = sentence;
  }
}

function refuseKey(sentence) {
  say(sentence);
  element("key").setAttribute("aria-invalid", "true");
  element("key").focus();
}

broadcaster.addEventListener("level", ({ detail }) => {
  meter.take(detail);
  const now = performance.now();
  if (now - progressShownAt > PROGRESS_INTERVAL_MS && broadcaster.state === "live") {
    progressShownAt = now;
    element("elapsed").textContent = toClock(Math.floor((now - liveSince) / 1000));
    warn(warningNow());
  }
});

function toClock(seconds) {
  const padded = (part) => String(part).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  return `${hours > 0 ? `${hours}:${padded(minutes)}` : minutes}:${padded(seconds % 60)}`;
}

function warningNow() {
  const { waitingSeconds, droppedSeconds, silentSeconds } = broadcaster;
  const lost = `${droppedSeconds.toFixed(1)} s of the sound were lost on the way to the relay.`;
  const dropped = droppedSeconds > 0 ? lost : "";
  if (waitingSeconds > WARNING_SECONDS) {
    return `The connection is too slow for the sound. ${dropped}`.trim();
  }
  if (silentSeconds > SILENCE_SHOWN_AFTER_SECONDS) {
    return "There is no sound from the source. Is it muted?";
  }
  return deviceProblem || dropped;
}

let screenLock = null;

/** A telephone that locks its screen takes the microphone away. */
async function keepScreenOn() {
  try {
    screenLock ??= (await navigator.wakeLock?.request("screen")) ?? null;
    screenLock?.addEventListener("release", () => (screenLock = null), { once: true });
  } catch {
    // The browser may refuse, for example when the battery is low; the broadcast goes on.
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && broadcaster.state === "live") {
    keepScreenOn();
  }
});

addEventListener("beforeunload", (event) => {
  if (!STOPPED.has(broadcaster.state)) {
    event.preventDefault();
  }
});

element("copy").addEventListener("click", async () => {
  const button = element("copy");
  element("audience").select();
  try {
    await navigator.clipboard.writeText(element("audience").value);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
});
