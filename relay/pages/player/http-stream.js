/**
 * A channel as an ordinary HTTP stream, for a network that refuses WebSockets. An `<audio>` element plays it, with all the
 * delay that browsers give such a stream: several seconds.
 *
 * Fires `change` when `state` changes:
 *   opening   nothing is heard yet
 *   playing
 *   stalled   the sound ran out
 *   blocked   the browser wants a click first
 *   failed    the stream ended, or the browser cannot play it
 */

import { streamAddressAt } from "./wire.js";

/** @typedef {"opening" | "playing" | "stalled" | "blocked" | "failed"} StreamState */

/** @type {Readonly<Record<string, StreamState>>} */
const STATES = Object.freeze({ playing: "playing", waiting: "stalled", ended: "failed", error: "failed" });

const OGG_OPUS = 'audio/ogg; codecs="opus"';

export class HttpStream extends EventTarget {
  #audio = new Audio();
  /** @type {StreamState} */
  #state = "opening";

  /**
   * Begins to play.
   *
   * @param {object} options
   * @param {string} options.url The relay's address.
   * @param {string} options.session
   * @param {string} options.channel
   * @param {string | null} options.token An element sends no headers, so it goes into the address.
   * @param {number} options.volume
   */
  constructor({ url, session, channel, token, volume }) {
    super();
    const audio = this.#audio;
    for (const [type, state] of Object.entries(STATES)) {
      audio.addEventListener(type, () => this.#enter(state));
    }
    const ending = audio.canPlayType(OGG_OPUS) === "" ? "mp3" : "opus";
    audio.src = streamAddressAt(url, { session, channel }, ending, token);
    audio.volume = volume;
    this.play();
  }

  get state() {
    return this.#state;
  }

  /** @param {number} gain 0 to 1. */
  set volume(gain) {
    this.#audio.volume = gain;
  }

  /** Goes on where the browser held it back. Call it inside a click. */
  play() {
    this.#audio.play().catch((error) => this.#enter(error?.name === "NotAllowedError" ? "blocked" : "failed"));
  }

  /** Ends it. Nothing is fired from then on. */
  close() {
    this.#state = "failed";
    this.#audio.pause();
    // Only an element without a source gives its connection up.
    this.#audio.removeAttribute("src");
    this.#audio.load();
  }

  /** @param {StreamState} state */
  #enter(state) {
    // While it loads, it waits as well.
    const isNews = this.#state !== state && !(this.#state === "opening" && state === "stalled");
    if (this.#state !== "failed" && isNews) {
      this.#state = state;
      this.dispatchEvent(new Event("change"));
    }
  }
}
