/** The listening page: connects a `RelayPlayer` and the session's channels to listen.html. */

import { ChannelChooser, preferredChannel } from "./channel-chooser.js";
import { element } from "./elements.js";
import {
  formatBitRate,
  formatMilliseconds,
  formatNumber,
  formatSeconds,
  knows,
  recall,
  remember,
  startTranslating,
  t,
} from "./i18n.js";
import { LinkSecret } from "./link-secret.js";
import { LivePicture } from "./live-picture.js";
import { say } from "./live-region.js";
import { BAD_REQUEST } from "./player/close-codes.js";
import { RelayPlayer } from "./player/index.js";
import { UNREACHABLE } from "./player/relay-socket.js";
import { SOURCE_LOST } from "./player/status.js";
import { TOKEN_PREFIX, addressAt, isKey, readPageAddress } from "./player/wire.js";
import { SessionWatch } from "./session-watch.js";

/**
 * @typedef {import("./player/types.js").PlayerCode} PlayerCode
 * @typedef {import("./player/types.js").PlayerState} PlayerState
 */

/**
 * Codes which show that the page does not fit the relay or the audio. Often the page is out of date.
 *
 * @type {ReadonlySet<PlayerCode | null>}
 */
const MISUNDERSTANDINGS = new Set([1002, 1003, 1007, 1008, 1009, BAD_REQUEST, "address", "codec", "protocol"]);

const DEFAULT_CHANNEL = "main";
const VOLUME_KEY = "relay.volume";
const LATENCY_KEY = "relay.latency";
const SAVE_DATA_KEY = "relay.save-data";
const LATENCIES = /** @type {const} */ (["low", "balanced", "stable"]);

/** @type {Readonly<Record<string, string>>} */
const CODEC_NAMES = Object.freeze({ opus: "Opus", pcm_s16le: "PCM" });

/** How often the chart's text alternative changes. A screen reader needs time to read it out. */
const WORDS_INTERVAL_MS = 5000;

/**
 * States in which the button says Play. A player that the browser or a phone call holds back may need it too.
 *
 * @type {ReadonlySet<PlayerState>}
 */
const STOPPED = new Set(["idle", "blocked", "interrupted", "ended", "failed"]);

/** How long after a session's end the page plays the next one by itself. A forgotten tab must not play tomorrow. */
const PLAYS_ON_MS = 4 * 60 * 60 * 1000;

/** When a session ends, its listeners reconnect spread over this time and not all at once. */
const RETURN_MS = 8000;

/** A held arrow key chooses many channels. The page watches the one at which it stops for this long. */
const CHOICE_MS = 300;

/**
 * States in which the broadcaster may have given the reason for silence.
 *
 * @type {ReadonlySet<PlayerState>}
 */
const HUSHED = new Set(["waiting", "buffering", "playing", "concealing", "rebuffering"]);

/**
 * States in which the player has statistics to show.
 *
 * @type {ReadonlySet<PlayerState>}
 */
const HEARD = new Set(["buffering", "playing", "concealing", "rebuffering", "reconnecting"]);

const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const brand = /** @type {HTMLElement} */ (document.querySelector(".brand"));
const page = readPageAddress(location.href, document.baseURI);
const link = new LinkSecret("token", page.session);
const chooser = new ChannelChooser(element("channels"), page.channel ?? DEFAULT_CHANNEL);
const picture = new LivePicture(element("buffer-shape"), element("delay-shape"));
const latency = LATENCIES.find((name) => name === recall(LATENCY_KEY)) ?? "balanced";
const savesData = recall(SAVE_DATA_KEY);
const player = new RelayPlayer({
  url: document.baseURI,
  session: page.session,
  channel: chooser.chosen,
  token: tokenOf(link),
  latency,
  saveData: savesData === null ? null : savesData === "on",
});

/** This page's `RelayPlayer`, for tests and for the browser's console. */
Object.defineProperty(window, "relayPlayer", { value: player });

const watch = new SessionWatch(() => {
  const token = tokenOf(link);
  const address = addressAt(document.baseURI, "listen", { session: page.session, channel: chooser.chosen });
  return { address, protocols: token === null ? [] : [TOKEN_PREFIX + token] };
});

/** Whether the address or the person has chosen the channel. */
let picked = page.channel !== null;
/**
 * Why the page cannot play or connect, or null.
 *
 * @type {{code: PlayerCode | null, reason: string} | null}
 */
let problem = null;
/** The session's title, or its id if it has no title. */
let sessionName = page.session;
/**
 * The channel's state before the person pressed Play, or null.
 *
 * @type {import("./player/types.js").ChannelState | import("./player/types.js").Silence | null}
 */
let sourceState = null;
/** Until when the page plays a next session by itself, in wall-clock time, because other clocks may stop in sleep. */
let playsOnUntil = 0;
let wordsAt = -Infinity;

/** @type {HTMLInputElement} */ (document.querySelector(`[name=latency][value=${latency}]`)).checked = true;

element("play").addEventListener("click", () => {
  if (STOPPED.has(player.state)) {
    player.play();
  } else {
    player.stop();
  }
});

player.addEventListener("statechange", ({ detail }) => {
  problem = detail.state === "failed" || detail.code === UNREACHABLE ? detail : null;
  sourceState = null;
  if (problem?.reason) {
    console.info(problem.reason);
  }
  if (STOPPED.has(detail.state)) {
    picture.clear();
  }
  if (detail.state === "ended") {
    playsOnUntil = Date.now() + PLAYS_ON_MS;
    setTimeout(giveUp, PLAYS_ON_MS);
  }
  render();
  lookAhead();
});

player.addEventListener("silence", render);

player.addEventListener("stats", ({ detail }) => {
  picture.take(detail, performance.now());
  renderStats(detail);
});

player.addEventListener("notice", ({ detail }) => {
  // The relay refused a switch, because the channel no longer exists.
  if (detail.code === BAD_REQUEST && chooser.chosen !== player.channel) {
    chooser.choose(player.channel);
    showAddress();
  }
});

player.addEventListener("channels", ({ detail }) => {
  showName(player.sessionName);
  showChannels(detail);
});

link.addEventListener("change", () => {
  player.token = tokenOf(link);
  if (player.state === "connecting") {
    // The attempt uses the previous token, which the relay may refuse.
    player.stop();
    player.play();
  } else if (player.state === "failed") {
    player.stop();
  }
  watch.stop();
  lookAhead();
});

/**
 * Returns the link's token, or null if it is missing or malformed. The relay reports whether the session needs one.
 *
 * @param {LinkSecret} link
 */
function tokenOf({ value }) {
  return isKey(value) ? value : null;
}

chooser.addEventListener("choose", () => {
  picked = true;
  showAddress();
  picture.clear();
  if (player.state === "idle") {
    problem = null;
    sourceState = chooser.channel?.state ?? null;
    render();
  }
  followChoice(CHOICE_MS);
});

/**
 * Plays the chosen channel, or watches it if the page does not play. A watch that stayed with another channel would hear
 * that one as soon as it is live.
 *
 * @param {number} [delayMs] How long to wait before watching.
 */
function followChoice(delayMs) {
  player.switchChannel(chooser.chosen);
  watch.stop();
  lookAhead(delayMs);
}

/** @param {string | null} name */
function showName(name) {
  sessionName = name ?? page.session;
  element("session").textContent = sessionName;
  document.title = t("listen.title", { session: sessionName });
}

/**
 * Lists the session's channels. If the person has not picked one, chooses the channel in their language.
 *
 * @param {readonly import("./player/types.js").Channel[]} channels
 */
function showChannels(channels) {
  chooser.show(channels);
  const listed = channels.some(({ id }) => id === chooser.chosen);
  if (!picked && channels.length > 0 && (player.state === "idle" || !listed)) {
    const preferred = preferredChannel(channels, navigator.languages);
    if (preferred !== chooser.chosen) {
      chooser.choose(preferred);
      followChoice();
    }
  }
}

/** Puts the chosen channel into the page's address, so that a copied address leads to the same sound. */
function showAddress() {
  const path = chooser.chosen === DEFAULT_CHANNEL ? "" : `/${chooser.chosen}`;
  history.replaceState(null, "", `listen/${page.session}${path}${location.hash}`);
}

element("latency").addEventListener("change", ({ target }) => {
  const chosen = LATENCIES.find((name) => name === /** @type {HTMLInputElement} */ (target).value);
  if (chosen !== undefined) {
    player.latency = chosen;
    remember(LATENCY_KEY, chosen);
    renderLatency();
  }
});

const saveData = element("save-data");
saveData.checked = player.saveData;
saveData.addEventListener("change", () => {
  player.saveData = saveData.checked;
  remember(SAVE_DATA_KEY, saveData.checked ? "on" : "off");
});

const volume = element("volume");
volume.value = recall(VOLUME_KEY) ?? "100";
volume.addEventListener("input", () => {
  remember(VOLUME_KEY, volume.value);
  applyVolume();
});
applyVolume();

function applyVolume() {
  // Loudness does not grow in proportion to gain. Squaring makes the slider's steps sound about equal.
  player.volume = (volume.valueAsNumber / 100) ** 2;
  const shown = formatNumber(volume.valueAsNumber / 100, { style: "percent" });
  element("volume-shown").textContent = shown;
  volume.setAttribute("aria-valuetext", shown);
}

function render() {
  const { state } = player;
  const running = !STOPPED.has(state);
  main.dataset.state = state;
  main.classList.toggle("running", running);
  // A click on the brand's link would leave the page and stop the sound.
  brand.inert = running;
  element("running").hidden = !HEARD.has(state);
  showName(sessionName);
  element("play-label").textContent = t(running ? "listen.stop" : "listen.play");
  say(element("status"), sentence(state));
  renderLatency();
  renderStats(player.stats);
  applyVolume();
}

/** @param {PlayerState} state */
function sentence(state) {
  if (problem !== null) {
    return describe(problem);
  }
  const before = state === "idle" && sourceState !== null ? `listen.before.${sourceState}` : "";
  const hushed = HUSHED.has(state) && player.silence !== null ? `listen.silence.${player.silence}` : "";
  const lost = player.code === SOURCE_LOST ? "listen.source-lost" : "";
  const late = player.code === "http" && HEARD.has(state) ? "listen.http" : "";
  return t([before, hushed, lost, late].find(knows) ?? `listen.state.${state}`);
}

/**
 * Explains a problem in the page's language. The reason that comes with the code is English and goes to the console.
 *
 * @param {{code: PlayerCode | null}} problem
 */
function describe({ code }) {
  if (MISUNDERSTANDINGS.has(code)) {
    return t("listen.problem.misunderstanding");
  }
  const key = [`listen.problem.${code}`, `problem.${code}`].find(knows) ?? "problem.other";
  return t(key, { code });
}

function renderLatency() {
  element("latency-hint").textContent = t(`listen.latency-hint.${player.latency}`);
}

/** @param {import("./player/types.js").PlayerStats} stats */
function renderStats(stats) {
  /** @type {(id: string, value: number | null, format: (value: number) => string) => void} */
  const show = (id, value, format) => {
    element(id).textContent = !STOPPED.has(player.state) && value !== null ? format(value) : "–";
  };
  element("delay-now").hidden = stats.delayMs === null;
  show("delay", stats.delayMs, formatMilliseconds);
  show("buffer", stats.bufferMs, formatMilliseconds);
  show("interruptions", stats.underruns, formatNumber);
  show("lost", stats.gapMs / 1000, formatSeconds);
  const codec = CODEC_NAMES[stats.codec ?? ""] ?? stats.codec;
  show("codec", stats.codec === null ? null : stats.bitsPerSecond, (rate) => `${codec}, ${formatBitRate(rate)}`);
  main.style.setProperty("--fill", Math.min(1, stats.bufferMs / (stats.targetMs || 1)).toFixed(2));
  const now = performance.now();
  if (now - wordsAt >= WORDS_INTERVAL_MS) {
    wordsAt = now;
    const [delay, buffer] = ["delay", "buffer"].map((id) => element(id).textContent);
    element("picture").setAttribute("aria-label", t("listen.picture.words", { delay, buffer }));
  }
}

/**
 * Watches the session while the page does not play. Before the person presses Play, it watches while the page is
 * visible. After a session ends, it also watches in the background, until the next session begins.
 *
 * @param {number} [delayMs] How long to wait before watching an idle page's channel.
 */
function lookAhead(delayMs = 0) {
  if (player.state === "ended") {
    watch.start(Math.random() * RETURN_MS);
  } else if (player.state === "idle" && !document.hidden && sourceState !== "live") {
    watch.start(delayMs);
  } else {
    watch.stop();
  }
}

watch.addEventListener("news", ({ detail }) => {
  showName(detail.sessionName);
  showChannels(detail.channels);
  const state = chooser.channel?.state ?? detail.state;
  if (player.state === "idle") {
    sourceState = state === "waiting" && detail.silence !== null ? detail.silence : state;
    problem = null;
    render();
    lookAhead();
  } else if (state === "live" && Date.now() < playsOnUntil) {
    player.play();
  } else {
    giveUp();
  }
});

watch.addEventListener("refused", ({ detail: code }) => {
  if (player.state === "idle") {
    problem = { code, reason: "" };
    render();
  }
});

document.addEventListener("visibilitychange", () => {
  // A live session may have ended while the page was hidden.
  sourceState = player.state === "idle" && sourceState === "live" ? null : sourceState;
  lookAhead();
});

/** Stops waiting for the next session once the last one ended too long ago. */
function giveUp() {
  if (player.state === "ended" && Date.now() >= playsOnUntil) {
    watch.stop();
    player.stop();
  }
}

await startTranslating(() => {
  chooser.render();
  render();
});
lookAhead();
