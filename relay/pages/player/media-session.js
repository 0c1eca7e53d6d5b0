/**
 * Connects the controls of a lock screen, headset or keyboard to one player at a time: the last one that started.
 *
 * Chromium and Firefox show the controls only while a media element plays, and an AudioContext is not a media element.
 * So an element plays silence beside the sound. If the browser refuses that, only the controls are missing.
 */

/**
 * @typedef {{play: () => unknown, stop: () => void}} Player
 * @typedef {{title: string, artist: string}} Words
 */

const ACTIONS = /** @type {const} */ (["play", "pause", "stop"]);

/**
 * The players that play, in the order in which they started.
 *
 * @type {Map<Player, {words: Words, isHeard: boolean}>}
 */
const playing = new Map();

/** @type {Player | null} */
let owner = null;
/** @type {HTMLAudioElement | null} */
let element = null;

/**
 * Connects the controls to a player that starts. If the player already plays, only updates its title, so that it takes
 * no controls from a player that started later.
 *
 * @param {Player} player
 * @param {Words} words
 */
export function claimMediaSession(player, words) {
  if (navigator.mediaSession === undefined) {
    return;
  }
  const isNew = !playing.has(player);
  playing.set(player, { isHeard: false, ...playing.get(player), words });
  if (isNew || owner === player) {
    own(player, words);
  }
}

/**
 * Shows the controls. Call it once sound is heard: an earlier start of the element would disturb the player's start.
 *
 * @param {Player} player
 */
export function showMediaSession(player) {
  const played = playing.get(player);
  if (played !== undefined) {
    played.isHeard = true;
    show();
  }
}

/**
 * Notes that a player stopped. Its controls go to another playing one. If there is none, they stay and can restart it.
 *
 * @param {Player} player
 */
export function pauseMediaSession(player) {
  playing.delete(player);
  if (owner === player && !handOver()) {
    element?.pause();
    navigator.mediaSession.playbackState = "paused";
  }
}

/**
 * Disconnects the controls from a player that is disposed of.
 *
 * @param {Player} player
 */
export function releaseMediaSession(player) {
  playing.delete(player);
  if (owner !== player || handOver()) {
    return;
  }
  owner = null;
  element?.pause();
  // The controls vanish when the element has no source.
  element?.removeAttribute("src");
  element?.load();
  element = null;
  navigator.mediaSession.playbackState = "none";
  navigator.mediaSession.metadata = null;
  for (const action of ACTIONS) {
    navigator.mediaSession.setActionHandler(action, null);
  }
}

/**
 * @param {Player} player
 * @param {Words} words
 */
function own(player, words) {
  const session = navigator.mediaSession;
  owner = player;
  session.metadata = new MediaMetadata(words);
  session.playbackState = "playing";
  session.setActionHandler("play", () => player.play());
  session.setActionHandler("pause", () => player.stop());
  session.setActionHandler("stop", () => player.stop());
  show();
}

/** Hands the controls to the playing player that started last. Returns false if there is none. */
function handOver() {
  const heir = [...playing].pop();
  if (heir === undefined) {
    return false;
  }
  const [player, { words }] = heir;
  own(player, words);
  return true;
}

function show() {
  // Safari shows the controls for the AudioContext itself, and might interrupt a second sound.
  const isHeard = owner !== null && playing.get(owner)?.isHeard;
  if (!isHeard || navigator.audioSession !== undefined) {
    return;
  }
  if (element === null) {
    // Chromium shows no controls for sound shorter than 5 s, for a MediaStream, or for a muted element.
    element = new Audio(new URL("./silence.flac", import.meta.url).href);
    element.loop = true;
  }
  element.play().catch(() => {});
}
