/** The resampler for the broadcaster's page; it lives with the player, which is published by itself. */

export * from "./player/resampler.js";
