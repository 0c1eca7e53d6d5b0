/**
 * What is going on, in one word. Pure.
 *
 * What is heard comes first: while a connection is made anew behind the sound, it plays.
 */

/** A channel whose broadcaster paused, or lost its connection. */
export const SOURCE_LOST = "source_lost";

/**
 * @param {object} facts
 * @param {"connecting" | "up" | "down"} facts.link To the relay.
 * @param {import("./messages.js").Mode} facts.mode Of the audio thread.
 * @param {import("./types.js").ChannelState} facts.channelState
 * @param {boolean} facts.hasPlayed
 * @param {boolean} facts.isPausing Whether the speaker just says nothing.
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
