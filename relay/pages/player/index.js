/**
 * What the package offers: the player, the presets it knows with their least delays, and what it takes as a name or a
 * token. README.md explains all of it.
 *
 * @typedef {import("./types.js").Channel} Channel
 * @typedef {import("./types.js").ChannelState} ChannelState
 * @typedef {import("./types.js").Codec} Codec
 * @typedef {import("./types.js").Latency} Latency
 * @typedef {import("./types.js").Notice} Notice
 * @typedef {import("./types.js").PlayerCode} PlayerCode
 * @typedef {import("./types.js").PlayerState} PlayerState
 * @typedef {import("./types.js").PlayerStats} PlayerStats
 * @typedef {import("./types.js").RelayPlayerEventMap} RelayPlayerEventMap
 * @typedef {import("./types.js").RelayPlayerOptions} RelayPlayerOptions
 * @typedef {import("./types.js").Silence} Silence
 * @typedef {import("./types.js").StateChange} StateChange
 */

export { RelayPlayer } from "./relay-player.js";
export { FLOORS_MS } from "./target-delay.js";
export { isKey, isName } from "./wire.js";
