/**
 * What the package offers: the player, the presets it knows with their least delays, and what it takes as a name or a
 * token. README.md explains all of it.
 */

export { RelayPlayer } from "./relay-player.js";
export { FLOORS_MS } from "./target-delay.js";
export { isKey, isName } from "./wire.js";
