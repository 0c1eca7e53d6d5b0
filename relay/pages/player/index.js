/**
 * The player's public interface, see README.md.
 */

import { Player } from "../player.js";

const STATS_INTERVAL_MS = 250;

export class RelayPlayer extends EventTarget {
  #url;
  #session;
  #channel;
  #latency;
  #volume;
  #player = null;
  #state = "idle";
  #timer;

  /**
   * @param {object} options
   * @param {string} [options.url] `ws(s)://host`; the page's own host when left out.
   * @param {string} options.session
   * @param {string} [options.channel]
   * @param {string | null} [options.token]
   * @param {"low" | "balanced" | "stable"} [options.latency]
   * @param {number} [options.volume] The gain, 0 to 1.
   */
  constructor({ url = null, session, channel = "main", token: _token = null, latency = "balanced", volume = 1 }) {
    super();
    this.#url = url ?? `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}`;
    this.#session = session;
    this.#channel = channel;
    this.#latency = latency;
    this.#volume = volume;
  }

  get state() {
    return this.#state;
  }

  get channel() {
    return this.#channel;
  }

  get channels() {
    return [{ id: this.#channel, name: this.#channel, lang: null, state: "live" }];
  }

  get stats() {
    const report = this.#player?.report;
    const heldMs = Math.round((report?.heldSeconds ?? 0) * 1000);
    return {
      bufferMs: heldMs,
      targetMs: 300,
      playoutMs: heldMs,
      delayMs: heldMs,
      underruns: report?.underruns ?? 0,
      jumps: 0,
      concealedMs: 0,
      gaps: 0,
      gapMs: 0,
      driftPpm: 0,
      rate: 1,
      reconnects: 0,
    };
  }

  get context() {
    return this.#player?.context ?? null;
  }

  get output() {
    return this.#player?.output ?? null;
  }

  get latency() {
    return this.#latency;
  }

  set latency(preset) {
    this.#latency = preset;
  }

  get volume() {
    return this.#volume;
  }

  set volume(gain) {
    this.#volume = gain;
    if (this.#player !== null) {
      this.#player.volume = gain;
    }
  }

  async play() {
    if (this.#player === null) {
      const player = new Player(`${this.#url}/v1/listen/${this.#session}/${this.#channel}`);
      player.volume = this.#volume;
      player.addEventListener("statechange", () => this.#follow(player));
      this.#player = player;
      this.#timer = setInterval(() => this.#fire("stats", this.stats), STATS_INTERVAL_MS);
    }
    await this.#player.play();
  }

  stop() {
    this.#player?.stop();
  }

  switchChannel(id) {
    const playing = this.#player !== null;
    this.stop();
    this.#channel = id;
    if (playing) {
      this.play();
    }
  }

  #follow(player) {
    if (player !== this.#player) {
      return;
    }
    const previous = this.#state;
    this.#state = player.state;
    if (["idle", "ended", "failed"].includes(player.state)) {
      clearInterval(this.#timer);
      this.#player = null;
    }
    if (previous !== this.#state) {
      this.#fire("statechange", { state: this.#state, previous, reason: player.sentence, retryInMs: null });
    }
  }

  #fire(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
