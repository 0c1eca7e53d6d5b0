/**
 * Sends one source's sound to a channel: a worklet that makes frames, a Worker that sends them.
 *
 * Events: `statechange` when `state` or `problem` changed, `level` for every frame, detail {peak, rms}, `news` when
 * `way` or `relay` changed.
 *
 * States:
 *   idle          not started, or stopped
 *   starting      the source is being opened
 *   rehearsing    the source is open and its level is known, but nobody is sent anything
 *   connecting    no answer from the relay yet
 *   live
 *   reconnecting  the connection is gone and another attempt is under way; the last 1.5 s of the sound are kept
 *   stopping      the relay has been told that this was all
 *   failed        `problem` says why
 */

import { CLIPPED_PEAK, FRAME_SECONDS } from "./capture.js";
import { SourceError } from "./sources.js";
import { UNREACHABLE } from "./player/relay-socket.js";
import { TOKEN_PREFIX } from "./player/wire.js";

const BYTES_PER_SAMPLE = 2;
const SESSION_ENDED = 1000;

/** Below this (-60 dB) a frame counts as silent. */
const SILENT_RMS = 0.001;

/** How long a person is told of a clipped peak. */
const CLIP_SHOWN_SECONDS = 3;

const NO_WAY = Object.freeze({ waitingSeconds: 0, droppedSeconds: 0, roundTripMs: null });
const NO_RELAY = Object.freeze({ stats: null, heldBack: false });

export class Broadcaster extends EventTarget {
  #state = "idle";
  #problem = null;
  #context = null;
  #source = null;
  #node = null;
  #worker = null;
  #way = NO_WAY;
  #relay = NO_RELAY;
  #silentSeconds = 0;
  #sinceClip = Infinity;
  #heardAt = 0;

  get state() {
    return this.#state;
  }

  /** Why it stopped, failed or does not connect: {code, detail}, a name or a close code and what is known beside it; otherwise null. */
  get problem() {
    return this.#problem;
  }

  /** The way to the relay: {waitingSeconds, droppedSeconds, roundTripMs}, see uplink.js. */
  get way() {
    return this.#way;
  }

  /** What the relay says: {stats, heldBack}; `stats` is its last message of that type or null. */
  get relay() {
    return this.#relay;
  }

  /** The source while it is open, else null; see sources.js. */
  get source() {
    return this.#source;
  }

  /** How long the source has been silent without a break. */
  get silentSeconds() {
    return this.#silentSeconds;
  }

  /** Whether the sound was too loud a moment ago. */
  get clipped() {
    return this.#sinceClip < CLIP_SHOWN_SECONDS;
  }

  /** How long the browser has given no sound at all, as it does while a telephone rings. */
  get unheardSeconds() {
    return (performance.now() - this.#heardAt) / 1000;
  }

  /**
   * Goes live. Browsers allow this only to a call from within a click or a key press.
   *
   * @param {(context: AudioContext) => Promise<object>} openSource Gives a source, see sources.js.
   * @param {object} target
   * @param {string} target.address Of the broadcaster's WebSocket, with its query.
   * @param {number} target.rate Samples a second that its query promises.
   * @param {string} target.key The broadcast key or token, or an empty string.
   */
  async start(openSource, { address, rate, key }) {
    if (this.#state === "rehearsing") {
      this.#setState("starting");
    } else if (!(await this.#open(openSource, rate))) {
      return;
    }
    this.#openUplink(address, rate, key);
  }

  /** Opens the source for its level alone; `start` goes live with it as it is. Likewise to be called within a click. */
  async rehearse(openSource, rate) {
    if (await this.#open(openSource, rate)) {
      this.#source.begin();
      this.#setState("rehearsing");
    }
  }

  /** @returns {Promise<boolean>} whether the source is open; what failed shows in the state. */
  async #open(openSource, rate) {
    const context = new AudioContext({ latencyHint: "interactive" });
    this.#context = context;
    this.#silentSeconds = 0;
    this.#sinceClip = Infinity;
    this.#way = NO_WAY;
    this.#relay = NO_RELAY;
    this.#setState("starting");
    // A telephone call suspends the context; the broadcast goes on behind it. Closing it rejects what is pending.
    const resume = () => context.state === "suspended" && context.resume().catch(() => {});
    context.onstatechange = resume;
    resume();
    try {
      await context.audioWorklet.addModule(new URL("./capture-processor.js", import.meta.url));
      const source = await openSource(context);
      if (this.#context !== context) {
        source.close();
        return false;
      }
      this.#connect(source, rate);
      return true;
    } catch (error) {
      if (this.#context === context) {
        this.#close("failed", problemOf(error));
      }
      return false;
    }
  }

  /**
   * Takes another source while it runs. The present one is closed before, because a browser goes on with the
   * processing of a microphone that is open, whatever is asked for; when the other can not be opened there is silence.
   *
   * @throws {SourceError}
   */
  async changeSource(openSource) {
    const context = this.#context;
    this.#source.node.disconnect();
    this.#source.close();
    const source = await openSource(context);
    if (this.#context !== context) {
      source.close();
      return;
    }
    this.#source = source;
    source.node.connect(this.#node);
    source.begin();
  }

  /** Ends the broadcast: what waits is sent, then the relay tells the listeners that the session is over. */
  stop() {
    if (this.#state === "live") {
      this.#setState("stopping");
      this.#source.close();
      this.#worker.postMessage({ type: "end" });
    } else {
      this.#close("idle");
    }
  }

  /**
   * Ends it because the source is lost; the relay keeps the listeners for a while in case it comes back.
   *
   * @param {Error} error Why it could not be opened again.
   */
  abort(error) {
    this.#close("failed", problemOf(error));
  }

  #connect(source, rate) {
    this.#source = source;
    this.#node = new AudioWorkletNode(this.#context, "relay-capture", {
      channelCount: 2,
      channelCountMode: "clamped-max",
      channelInterpretation: "speakers",
      processorOptions: { rate },
    });
    this.#heardAt = performance.now();
    this.#node.port.onmessage = ({ data }) => this.#takeLevel(data);
    // Only what leads to the speakers is sure to run; the worklet's output is silence.
    source.node.connect(this.#node).connect(this.#context.destination);
  }

  #openUplink(address, rate, key) {
    const worker = new Worker(new URL("./uplink-worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => this.#worker === worker && this.#hear(data);
    worker.onerror = () => this.#worker === worker && this.#close("failed", { code: "not-loaded" });
    this.#worker = worker;
    const { port1, port2 } = new MessageChannel();
    this.#node.port.postMessage({ frames: port1 }, [port1]);
    const protocols = key ? [TOKEN_PREFIX + key] : [];
    const bytesPerSecond = BYTES_PER_SAMPLE * rate;
    worker.postMessage({ type: "open", address, protocols, bytesPerSecond, frames: port2 }, [port2]);
  }

  #hear(news) {
    switch (news.type) {
      case "state":
        this.#follow(news);
        return;
      case "way":
        this.#way = news;
        break;
      case "relay":
        this.#takeMessage(news.message);
        break;
    }
    this.dispatchEvent(new Event("news"));
  }

  #follow({ state, code, told }) {
    if (state === "stopped") {
      const ended = this.#state === "stopping" || code === SESSION_ENDED;
      const problem = this.#state === "stopping" ? { code: "off-air" } : { code, detail: told };
      this.#close(ended ? "idle" : "failed", problem);
      return;
    }
    if (state === "live") {
      this.#source.begin();
    }
    if (this.#state !== "stopping") {
      this.#setState(state, code === UNREACHABLE ? { code } : null);
    }
  }

  #takeMessage(message) {
    if (message.type === "stats") {
      this.#relay = { ...this.#relay, stats: message };
    } else if (message.type === "backpressure") {
      this.#relay = { ...this.#relay, heldBack: message.on === true };
    }
  }

  #takeLevel(level) {
    this.#heardAt = performance.now();
    this.#silentSeconds = level.rms < SILENT_RMS ? this.#silentSeconds + FRAME_SECONDS : 0;
    this.#sinceClip = level.peak >= CLIPPED_PEAK ? 0 : this.#sinceClip + FRAME_SECONDS;
    this.dispatchEvent(new CustomEvent("level", { detail: level }));
  }

  #close(state, problem = null) {
    this.#worker?.postMessage({ type: "close" });
    if (this.#node !== null) {
      // Levels that are on their way would move a meter that was set back.
      this.#node.port.onmessage = null;
    }
    this.#source?.close();
    this.#context?.close();
    this.#worker = null;
    this.#source = null;
    this.#context = null;
    this.#node = null;
    this.#setState(state, problem);
  }

  #setState(state, problem = null) {
    if (state !== this.#state || problem !== this.#problem) {
      this.#state = state;
      this.#problem = problem;
      this.dispatchEvent(new Event("statechange"));
    }
  }
}

function problemOf(error) {
  return error instanceof SourceError ? { code: error.code, detail: error.message } : { code: "not-loaded" };
}
