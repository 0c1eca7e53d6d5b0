/**
 * The package's exports: the player, the latency presets with their minimum delays, and checks of names and tokens.
 * README.md describes them.
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
