/**
 * What the package offers: the player, and the presets it knows with their least delays. README.md explains both.
 */

export { RelayPlayer } from "./relay-player.js";
export { FLOORS_MS } from "./target-delay.js";
