/**
 * The controls of a lock screen, a headset or a keyboard, for one player at a time.
 *
 * Chromium and Firefox show them only for a media element that plays, and an AudioContext is none. So one plays silence
 * beside the sound, which has no part in it: where the browser refuses, only the controls are missing.
 */

const ACTIONS = ["play", "pause", "stop"];

let owner = null;
let element = null;

/**
 * Shows what is played, and lets its controls start and stop it.
 *
 * @param {object} player
 * @param {{title: string, artist: string}} words
 */
export function claimMediaSession(player, words) {
  const session = navigator.mediaSession;
  if (session === undefined) {
    return;
  }
  owner = player;
  session.metadata = new MediaMetadata(words);
  session.playbackState = "playing";
  session.setActionHandler("play", () => player.play());
  session.setActionHandler("pause", () => player.stop());
  session.setActionHandler("stop", () => player.stop());
}

/** Has the browser show the controls. Only once something is heard: until then the element would be in its way. */
export function showMediaSession(player) {
  // Safari takes the AudioContext itself for what plays, and a second sound is one more that it could interrupt.
  if (owner !== player || navigator.audioSession !== undefined) {
    return;
  }
  if (element === null) {
    // Chromium shows no controls for what is shorter than 5 s, for a MediaStream, or for what is muted.
    element = new Audio(new URL("./silence.flac", import.meta.url));
    element.loop = true;
  }
  element.play().catch(() => {});
}

/** A player that stopped keeps its controls, so that it can be started from there, until another one plays. */
export function pauseMediaSession(player) {
  if (owner === player) {
    element?.pause();
    navigator.mediaSession.playbackState = "paused";
  }
}

/** Takes the controls away. */
export function releaseMediaSession(player) {
  if (owner !== player) {
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
