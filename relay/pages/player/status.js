/**
 * Derives the player's state. Pure.
 *
 * Audible sound takes precedence: while buffered sound plays during a reconnection, the state is "playing".
 */

/** The state of a channel whose broadcaster paused or lost its connection. */
export const SOURCE_LOST = "source_lost";

/**
 * @param {object} facts
 * @param {"connecting" | "up" | "down"} facts.link The connection to the relay.
 * @param {import("./messages.js").Mode} facts.mode The mode of the audio thread.
 * @param {import("./types.js").ChannelState} facts.channelState
 * @param {boolean} facts.hasPlayed
 * @param {boolean} facts.isPausing Whether it is silent only because the speaker pauses.
 * @returns {"connecting" | "waiting" | "buffering" | "playing" | "concealing" | "rebuffering" | "reconnecting"}
 */
export function statusOf({ link, mode, channelState, hasPlayed, isPausing }) {
  if (mode !== "silent") {
    return mode;
  }
  if (link !== "up") {
    return link === "down" ? "reconnecting" : "connecting";
  }
  if (channelState !== "live") {
    return "waiting";
  }
  if (!hasPlayed) {
    return "buffering";
  }
  return isPausing ? "playing" : "rebuffering";
}
