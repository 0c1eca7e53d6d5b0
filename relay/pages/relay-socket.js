/** The connection for the broadcaster's page; it lives with the player, which is published by itself. */

export * from "./player/relay-socket.js";
export { retryDelayMs } from "./player/backoff.js";
