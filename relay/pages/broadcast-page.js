/** The broadcasting page: connects a `Broadcaster`, its sources and the audience's link to broadcast.html. */

import { AudiencePanel } from "./audience-panel.js";
import { Broadcaster } from "./broadcaster.js";
import { FRAME_SECONDS } from "./capture.js";
import { element } from "./elements.js";
import { FilePanel } from "./file-panel.js";
import {
  directionOf,
  formatBitRate,
  formatMilliseconds,
  formatNumber,
  formatSeconds,
  knows,
  nameOfLanguage,
  startTranslating,
  t,
} from "./i18n.js";
import { tidyName } from "./label.js";
import { LevelMeter } from "./level-meter.js";
import { LinkSecret } from "./link-secret.js";
import { say } from "./live-region.js";
import { MicrophonePanel } from "./microphone-panel.js";
import { ScreenLock } from "./screen-lock.js";
import { WARNING_SECONDS } from "./send-queue.js";
import { unsupportedCode } from "./sources.js";
import { SPOKEN } from "./spoken-languages.js";
import { CHANNEL_BUSY, NOT_ALLOWED } from "./player/close-codes.js";
import { addressAt, isKey, isName, readPageAddress } from "./player/wire.js";
import { withTakeOver } from "./uplink.js";

const SILENCE_SHOWN_AFTER_SECONDS = 5;
const PAUSE_SHOWN_AFTER_SECONDS = 2;
/** Frames that queue in the network lengthen the round trip, so a long one gets the same warning as a full queue. */
const SLOW_ROUND_TRIP_MS = 1500;
const DROPS_SHOWN_MS = 10_000;
const PROGRESS_INTERVAL_MS = 500;

/** @typedef {import("./broadcaster.js").State} State */

/** @type {ReadonlySet<State>} */
const STOPPED = new Set(["idle", "failed"]);

/**
 * States in which nothing is sent and the person can change the settings.
 *
 * @type {ReadonlySet<State>}
 */
const OFF_AIR = new Set([...STOPPED, "rehearsing"]);

/**
 * States in which listeners hear the source, or will hear it after a reconnection.
 *
 * @type {ReadonlySet<State>}
 */
const ON_AIR = new Set(["live", "reconnecting"]);

/**
 * States in which the source is open and should deliver sound.
 *
 * @type {ReadonlySet<State>}
 */
const HEARD = new Set(["rehearsing", ...ON_AIR]);

/** Elements in which M is input and not a shortcut: text fields, select boxes and open dialogs. */
const TYPED_INTO = "input:not([type=radio], [type=checkbox], [type=file]), select, textarea, [contenteditable], dialog";

/** Fields that can show an error. */
const FIELDS = /** @type {const} */ (["file", "channel", "name", "session-name", "key"]);

/** @typedef {(typeof FIELDS)[number]} Field */

const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const brand = /** @type {HTMLElement} */ (document.querySelector(".brand"));
const page = readPageAddress(location.href, document.baseURI);
const broadcaster = new Broadcaster();
const meter = new LevelMeter(element("level"), element("level-shown"));
const link = new LinkSecret("key", page.session);
const audience = new AudiencePanel(page.session);
const screenLock = new ScreenLock();
const unsupported = unsupportedCode();
const microphone = unsupported ? null : new MicrophonePanel(broadcaster);
const files = new FilePanel(broadcaster, refuse);

/** This page's `Broadcaster`, for tests and for the browser's console. */
Object.defineProperty(window, "relayBroadcaster", { value: broadcaster });

/**
 * The field with an error and the key of its message.
 *
 * @type {{field: Field, key: string} | null}
 */
let mistake = null;
let liveSince = 0;
let dropsSeen = 0;
let dropsAt = -Infinity;

element("session").textContent = page.session;
element("channel").value = page.channel ?? "main";
element("key").value = link.value;
element("go").disabled = unsupported !== null;
const spoken = SPOKEN.map((tag) => ({ tag, name: nameOfLanguage(tag) }));
for (const { tag, name } of spoken.sort((one, other) => one.name.localeCompare(other.name))) {
  const option = new Option(name, tag);
  option.lang = tag;
  option.dir = directionOf(tag);
  element("tongue").add(option);
}

element("broadcast").addEventListener("submit", (event) => {
  event.preventDefault();
  if (OFF_AIR.has(broadcaster.state)) {
    goLive((address) => address);
  } else {
    broadcaster.stop();
  }
});

element("mute").addEventListener("click", () => broadcaster.mute(!broadcaster.muted));

addEventListener("keydown", (event) => {
  if (isMuteKey(event) && !element("mute").hidden) {
    event.preventDefault();
    broadcaster.mute(!broadcaster.muted);
  }
});

element("end").addEventListener("click", () => element("end-question").showModal());
element("end-cancel").addEventListener("click", () => element("end-question").close());
element("end-confirm").addEventListener("click", () => {
  element("end-question").close();
  broadcaster.end(element("key").value.trim());
});

element("take-over").addEventListener("click", () => goLive(withTakeOver));

element("rehearse").addEventListener("click", () => {
  if (broadcaster.state === "rehearsing") {
    broadcaster.stop();
  } else {
    microphone?.reset();
    broadcaster.rehearse(openSource);
  }
});

element("source-choice").addEventListener("change", () => {
  if (broadcaster.state === "rehearsing") {
    broadcaster.stop();
  }
  renderPanels();
});

for (const field of FIELDS) {
  element(field).addEventListener("input", () => {
    if (mistake?.field === field) {
      mistake = null;
      renderMistake();
    }
  });
}

link.addEventListener("change", () => {
  element("key").value = link.value;
  mistake = mistake?.field === "key" ? null : mistake;
  if (broadcaster.problem?.code === NOT_ALLOWED) {
    broadcaster.stop();
  }
  render();
});

element("key").addEventListener("input", () => link.forget());

element("session-name").addEventListener("input", () => audience.showTitle(nameIn("session-name")));

element("channel").addEventListener("input", () => {
  const channel = element("channel").value.trim();
  if (isName(channel)) {
    audience.showChannel(channel);
  }
});

/** @param {(address: string) => string} finish Returns the address to connect to; gets the channel's plain address. */
function goLive(finish) {
  const [channel, key] = [element("channel").value.trim(), element("key").value.trim()];
  const [name, title] = [nameIn("name"), nameIn("session-name")];
  if (!isName(channel)) {
    refuse("channel", "broadcast.channel-wrong");
  } else if (name === null) {
    refuse("name", "broadcast.name-wrong");
  } else if (title === null) {
    refuse("session-name", "broadcast.name-wrong");
  } else if (key !== "" && !isKey(key)) {
    refuse("key", "broadcast.key-wrong");
  } else if (chosenSource() === "file" && files.file === undefined) {
    refuse("file", "broadcast.file-missing");
  } else {
    mistake = null;
    if (broadcaster.state !== "rehearsing") {
      microphone?.reset();
    }
    const address = addressAt(document.baseURI, "broadcast", { session: page.session, channel }, query(name, title));
    broadcaster.start(openSource, { address: finish(address), key });
  }
}

/**
 * Whether a key press is the shortcut M. On a keyboard without Latin letters, the key in the same place counts.
 * Typing into a field does not.
 *
 * @param {KeyboardEvent} event
 */
function isMuteKey({ key, code, target, repeat, ctrlKey, altKey, metaKey }) {
  const isM = key.toLowerCase() === "m" || (code === "KeyM" && key > "\x7f");
  const isTyped = target instanceof Element && target.closest(TYPED_INTO) !== null;
  return isM && !isTyped && !repeat && !ctrlKey && !altKey && !metaKey;
}

/**
 * Shows an error at a field and moves the focus there.
 *
 * @param {Field} field
 * @param {string} key
 */
function refuse(field, key) {
  mistake = { field, key };
  element("more").open ||= element("more").contains(element(field));
  render();
  // A screen reader reads the error out together with the focused field.
  element(field).focus();
}

/**
 * Returns the name in a field: "" if the field is empty, null if the text is not a valid name.
 *
 * @param {"name" | "session-name"} field
 */
function nameIn(field) {
  const { value } = element(field);
  return value.trim() === "" ? "" : tidyName(value);
}

/**
 * @param {string} name
 * @param {string} title
 */
function query(name, title) {
  const said = { name, session_name: title, lang: element("tongue").value };
  const known = Object.entries(said).filter(([, value]) => value !== "");
  return { pace: "live", ...Object.fromEntries(known) };
}

/** @param {AudioContext} context */
function openSource(context) {
  return chosenSource() === "file" || microphone === null ? files.open(context) : microphone.open(context);
}

function chosenSource() {
  return /** @type {RadioNodeList} */ (element("broadcast").elements.namedItem("source")).value;
}

broadcaster.addEventListener("statechange", () => {
  const { state, problem } = broadcaster;
  if (state === "starting") {
    liveSince = 0;
    dropsSeen = 0;
    dropsAt = -Infinity;
  } else if (state === "live") {
    liveSince ||= performance.now();
    microphone?.list();
  } else if (state === "rehearsing") {
    microphone?.list();
  } else if (STOPPED.has(state)) {
    meter.reset();
  }
  if (problem?.detail) {
    // The text is English, or the browser's own error message.
    console.info(problem.detail);
  }
  screenLock.wanted = !OFF_AIR.has(state);
  if (problem?.code === NOT_ALLOWED) {
    refuse("key", `problem.${NOT_ALLOWED}`);
  } else {
    render();
  }
  if (problem?.code === CHANNEL_BUSY) {
    element("take-over").focus();
  }
});

broadcaster.addEventListener("level", ({ detail }) => meter.take(detail));
broadcaster.addEventListener("news", renderNews);
setInterval(renderProgress, PROGRESS_INTERVAL_MS);

function render() {
  const { state, problem, muted, paused } = broadcaster;
  const stopped = OFF_AIR.has(state);
  const mayEnd = state === "live" || (stopped && paused);
  main.dataset.state = state;
  main.classList.toggle("muted", muted);
  // A click on the brand's link would leave the page and end the broadcast.
  brand.inert = !stopped;
  document.title = t(muted ? "broadcast.title.muted" : "broadcast.title", { session: page.session });
  element("mute").hidden = !ON_AIR.has(state);
  element("mute-label").textContent = t(muted ? "broadcast.unmute" : "broadcast.mute");
  element("on-air-label").textContent = t(muted ? "broadcast.muted" : "broadcast.on-air");
  element("end").hidden = !mayEnd;
  if (!mayEnd) {
    element("end-question").close();
  }
  element("go-label").textContent = t(stopped ? "broadcast.go" : "broadcast.stop");
  element("go").disabled = state === "stopping" || unsupported !== null;
  for (const id of /** @type {const} */ (["source-choice", "tongue", ...FIELDS])) {
    element(id).disabled = !stopped;
  }
  element("rehearse").textContent = t(state === "rehearsing" ? "broadcast.rehearse-stop" : "broadcast.rehearse");
  element("rehearse").disabled = !stopped || unsupported !== null;
  element("on-air").hidden = state !== "live";
  element("take-over").hidden = !(stopped && problem?.code === CHANNEL_BUSY);
  say(element("status"), sentence(state, problem));
  renderMistake();
  microphone?.render();
  audience.render();
  renderPanels();
  renderNews();
  renderProgress();
}

function renderMistake() {
  for (const field of FIELDS) {
    element(field).removeAttribute("aria-invalid");
    element(`${field}-error`).textContent = "";
  }
  if (mistake !== null) {
    element(mistake.field).setAttribute("aria-invalid", "true");
    element(`${mistake.field}-error`).textContent = t(mistake.key);
  }
}

function renderPanels() {
  element("microphone-panel").hidden = chosenSource() !== "microphone";
  element("file-panel").hidden = chosenSource() !== "file";
}

/**
 * @param {State} state
 * @param {import("./broadcaster.js").Problem | null} problem
 */
function sentence(state, problem) {
  // A refused key is reported at its field, not here.
  if (problem === null || problem.code === NOT_ALLOWED) {
    const shown = problem !== null ? "idle" : broadcaster.muted && state === "live" ? "muted" : state;
    return t(unsupported ? `problem.${unsupported}` : `broadcast.state.${shown}`);
  }
  return describe(problem);
}

/** @param {import("./broadcaster.js").Problem} problem */
function describe({ code, detail = "" }) {
  return t(knows(`problem.${code}`) ? `problem.${code}` : "problem.other", { code, detail });
}

function renderNews() {
  const { way, relay, state } = broadcaster;
  const live = !STOPPED.has(state);
  /** @type {(id: string, value: number | null | undefined, format: (value: number) => string) => void} */
  const show = (id, value, format) => {
    element(id).textContent = live && typeof value === "number" && Number.isFinite(value) ? format(value) : "–";
  };
  show("listeners", relay.stats?.listeners, formatNumber);
  show("dropped", relay.stats && relay.stats.dropped_frames * FRAME_SECONDS, formatSeconds);
  show("way", way.roundTripMs, formatMilliseconds);
  show("bitrate", way.bitsPerSecond, formatBitRate);
  show("waiting", way.waitingSeconds, formatSeconds);
  show("unsent", way.droppedSeconds, formatSeconds);
  if (way.droppedSeconds > dropsSeen) {
    dropsSeen = way.droppedSeconds;
    dropsAt = performance.now();
  }
}

function renderProgress() {
  const { state } = broadcaster;
  if (state === "live") {
    element("elapsed").textContent = toClock(Math.floor((performance.now() - liveSince) / 1000));
  }
  say(element("warning"), STOPPED.has(state) ? "" : warning());
}

/** Returns the most urgent warning, or "". */
function warning() {
  const { way, relay, silentSeconds, unheardSeconds, clipped, muted, speaksMuted, state } = broadcaster;
  if (!HEARD.has(state)) {
    return "";
  }
  if (speaksMuted) {
    return t("broadcast.warning.muted");
  }
  if (unheardSeconds > PAUSE_SHOWN_AFTER_SECONDS) {
    return t("broadcast.warning.paused");
  }
  const speed = relay.stats?.arrival_rate ?? 1;
  const wrongSpeed = t("broadcast.warning.speed", { speed: formatNumber(speed, { style: "percent" }) });
  if (state === "live" && speed > 1) {
    return wrongSpeed;
  }
  if (state === "live" && (way.waitingSeconds > WARNING_SECONDS || (way.roundTripMs ?? 0) > SLOW_ROUND_TRIP_MS)) {
    return t(relay.heldBack ? "broadcast.warning.held-back" : "broadcast.warning.slow");
  }
  if (performance.now() - dropsAt < DROPS_SHOWN_MS) {
    return t("broadcast.warning.dropped");
  }
  // Checked after the network warnings, because a slow network also lowers the rate at which sound arrives.
  if (state === "live" && speed < 1) {
    return wrongSpeed;
  }
  if (!muted && silentSeconds > SILENCE_SHOWN_AFTER_SECONDS) {
    return t("broadcast.warning.silent");
  }
  if (!muted && clipped) {
    return t("broadcast.warning.clipped");
  }
  return microphone?.replaced ? t("broadcast.warning.replaced") : "";
}

/** @param {number} seconds */
function toClock(seconds) {
  const padded = (/** @type {number} */ part) => String(part).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  return `${hours > 0 ? `${hours}:${padded(minutes)}` : minutes}:${padded(seconds % 60)}`;
}

addEventListener("beforeunload", (event) => {
  if (!OFF_AIR.has(broadcaster.state)) {
    event.preventDefault();
    event.returnValue = true; // for Chrome before 119
  }
});

await startTranslating(render);
audience.showChannel(element("channel").value);
