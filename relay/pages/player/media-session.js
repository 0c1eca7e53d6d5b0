/**
 * The controls of a lock screen, a headset or a keyboard, for one player at a time.
 */

const ACTIONS = ["play", "pause", "stop"];

let owner = null;

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

/** A player that stopped keeps its controls, so that it can be started from there, until another one plays. */
export function pauseMediaSession(player) {
  if (owner === player) {
    navigator.mediaSession.playbackState = "paused";
  }
}

/** Takes the controls away. */
export function releaseMediaSession(player) {
  if (owner !== player) {
    return;
  }
  owner = null;
  navigator.mediaSession.playbackState = "none";
  navigator.mediaSession.metadata = null;
  for (const action of ACTIONS) {
    navigator.mediaSession.setActionHandler(action, null);
  }
}
