/**
 * The controls of a lock screen, a headset or a keyboard, for one player at a time: the one that was started last of those
 * that play.
 *
 * Chromium and Firefox show them only for a media element that plays, and an AudioContext is none. So one plays silence
 * beside the sound, which has no part in it: where the browser refuses, only the controls are missing.
 */

/**
 * @typedef {{play: () => unknown, stop: () => void}} Player
 * @typedef {{title: string, artist: string}} Words
 */

const ACTIONS = /** @type {const} */ (["play", "pause", "stop"]);

/**
 * What plays, in the order of its start.
 *
 * @type {Map<Player, {words: Words, isHeard: boolean}>}
 */
const playing = new Map();

/** @type {Player | null} */
let owner = null;
/** @type {HTMLAudioElement | null} */
let element = null;

/**
 * Shows what is played, and lets its controls start and stop it. Of a player that plays already only the words are new:
 * it takes nothing from one that was started later.
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
 * Has the browser show the controls. Only once something is heard: until then the element would be in its way.
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
 * A player that stopped hands its controls to another that plays, or keeps them, so that it can be started from there.
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
 * Takes the controls away.
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
  // Without a source it is nothing that could go on, so the controls vanish.
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

/** Gives the controls to the player that was started last of those that still play; false when there is none. */
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
  // Safari takes the AudioContext itself for what plays, and a second sound is one more that it could interrupt.
  const isHeard = owner !== null && playing.get(owner)?.isHeard;
  if (!isHeard || navigator.audioSession !== undefined) {
    return;
  }
  if (element === null) {
    // Chromium shows no controls for what is shorter than 5 s, for a MediaStream, or for what is muted.
    element = new Audio(new URL("./silence.flac", import.meta.url).href);
    element.loop = true;
  }
  element.play().catch(() => {});
}
