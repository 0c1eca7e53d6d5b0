/** The protocol's words for the pages; they live with the player, which is published by itself. */

export * from "./player/wire.js";
export * from "./player/close-codes.js";
