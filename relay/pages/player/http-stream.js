/**
 * Plays a channel as an ordinary HTTP stream, for a network that blocks WebSockets. It uses an `<audio>` element, in
 * which browsers delay a stream by several seconds.
 *
 * Fires `change` when `state` changes:
 *   opening   nothing is heard yet
 *   playing
 *   stalled   the sound ran out
 *   blocked   the browser requires a click first
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
  #channel;

  /**
   * Starts to play.
   *
   * @param {object} options
   * @param {string} options.url The relay's address.
   * @param {string} options.session
   * @param {string} options.channel
   * @param {string | null} options.token Goes into the address, because an element sends no headers.
   * @param {number} options.volume
   */
  constructor({ url, session, channel, token, volume }) {
    super();
    this.#channel = channel;
    const audio = this.#audio;
    for (const [type, state] of Object.entries(STATES)) {
      audio.addEventListener(type, () => this.#enter(state));
    }
    const ending = audio.canPlayType(OGG_OPUS) === "" ? "mp3" : "opus";
    // Names the page's origin to a relay elsewhere, which serves only origins that it allows.
    audio.crossOrigin = "anonymous";
    audio.src = streamAddressAt(url, { session, channel }, ending, token);
    audio.volume = volume;
    this.play();
  }

  get state() {
    return this.#state;
  }

  get channel() {
    return this.#channel;
  }

  /** @param {number} gain 0 to 1. */
  set volume(gain) {
    this.#audio.volume = gain;
  }

  /** Starts playback, also after the browser blocked it. Then call it from a click handler. */
  play() {
    this.#audio.play().catch((error) => this.#enter(error?.name === "NotAllowedError" ? "blocked" : "failed"));
  }

  /** Ends the stream. It fires no more events. */
  close() {
    this.#state = "failed";
    this.#audio.pause();
    // An element closes its connection only when it has no source.
    this.#audio.removeAttribute("src");
    this.#audio.load();
  }

  /** @param {StreamState} state */
  #enter(state) {
    // The element fires `waiting` also while it loads.
    const isNews = this.#state !== state && !(this.#state === "opening" && state === "stalled");
    if (this.#state !== "failed" && isNews) {
      this.#state = state;
      this.dispatchEvent(new Event("change"));
    }
  }
}
