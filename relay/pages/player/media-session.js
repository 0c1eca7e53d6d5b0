/**
 * The controls of a lock screen, a headset or a keyboard, for one player at a time: the one that was started last of those
 * that play.
 *
 * Chromium and Firefox show them only for a media element that plays, and an AudioContext is none. So one plays silence
 * beside the sound, which has no part in it: where the browser refuses, only the controls are missing.
 */

const ACTIONS = ["play", "pause", "stop"];

/** What plays, in the order of its start: from the player to {words, isHeard}. */
const playing = new Map();

let owner = null;
let element = null;

/**
 * Shows what is played, and lets its controls start and stop it. Of a player that plays already only the words are new:
 * it takes nothing from one that was started later.
 *
 * @param {object} player
 * @param {{title: string, artist: string}} words
 */
export function claimMediaSession(player, words) {
  if (navigator.mediaSession === undefined) {
    return;
  }
  const isNew = !playing.has(player);
  playing.set(player, { isHeard: false, ...playing.get(player), words });
  if (isNew || owner === player) {
    own(player);
  }
}

/** Has the browser show the controls. Only once something is heard: until then the element would be in its way. */
export function showMediaSession(player) {
  if (playing.has(player)) {
    playing.get(player).isHeard = true;
    show();
  }
}

/** A player that stopped hands its controls to another that plays, or keeps them, so that it can be started from there. */
export function pauseMediaSession(player) {
  playing.delete(player);
  if (owner === player && !handOver()) {
    element?.pause();
    navigator.mediaSession.playbackState = "paused";
  }
}

/** Takes the controls away. */
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

function own(player) {
  const session = navigator.mediaSession;
  owner = player;
  session.metadata = new MediaMetadata(playing.get(player).words);
  session.playbackState = "playing";
  session.setActionHandler("play", () => player.play());
  session.setActionHandler("pause", () => player.stop());
  session.setActionHandler("stop", () => player.stop());
  show();
}

/** Gives the controls to the player that was started last of those that still play; false when there is none. */
function handOver() {
  const heir = [...playing.keys()].pop();
  if (heir === undefined) {
    return false;
  }
  own(heir);
  return true;
}

function show() {
  // Safari takes the AudioContext itself for what plays, and a second sound is one more that it could interrupt.
  if (!playing.get(owner)?.isHeard || navigator.audioSession !== undefined) {
    return;
  }
  if (element === null) {
    // Chromium shows no controls for what is shorter than 5 s, for a MediaStream, or for what is muted.
    element = new Audio(new URL("./silence.flac", import.meta.url));
    element.loop = true;
  }
  element.play().catch(() => {});
}
