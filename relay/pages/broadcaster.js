/**
 * Sends one source's sound to a channel: a worklet that makes frames, a Worker that sends them.
 *
 * States:
 *   idle          not started, or stopped
 *   starting      the source is being opened
 *   rehearsing    the source is open and its level is known, but nobody is sent anything
 *   connecting    no answer from the relay yet
 *   live
 *   reconnecting  the connection is gone and another attempt is under way; the last 1.5 s of the sound are kept
 *   stopping      the relay is told that this was all, or all for now
 *   failed        `problem` says why
 */

import { CLIPPED_PEAK, FRAME_SECONDS } from "./capture.js";
import { SourceError } from "./sources.js";
import { SpeechWatch } from "./speech-watch.js";
import { UNREACHABLE } from "./player/relay-socket.js";
import { TOKEN_PREFIX } from "./player/wire.js";

const SESSION_ENDED = 1000;

/** Below this (-60 dB) a frame counts as silent. */
const SILENT_RMS = 0.001;

/** How long a person is told of a clipped peak. */
const CLIP_SHOWN_SECONDS = 3;

/**
 * @typedef {"idle" | "starting" | "rehearsing" | "connecting" | "live" | "reconnecting" | "stopping" | "failed"} State
 *
 * @typedef {object} Problem
 * @property {Code | string} code A close code, or a name for what is wrong.
 * @property {string} [detail] What else is known.
 *
 * @typedef {{peak: number, rms: number}} Level 1 is full scale.
 *
 * @typedef {object} Said What the relay says.
 * @property {import("./player/messages.js").BroadcastStats | null} stats
 * @property {boolean} heldBack
 *
 * @typedef {object} Target
 * @property {string} address Of the broadcaster's WebSocket, with its query but for the format.
 * @property {string} key The broadcast key or token, or an empty string.
 *
 * @typedef {object} BroadcasterEventMap
 * @property {Event} statechange `state`, `problem` or `muted` changed.
 * @property {CustomEvent<Level>} level For every frame.
 * @property {Event} news `way` or `relay` changed.
 *
 * @typedef {(context: AudioContext) => Promise<Source>} Opener
 * @typedef {import("./sources.js").Source} Source
 * @typedef {import("./uplink.js").Code} Code
 * @typedef {import("./uplink.js").News} News
 * @typedef {import("./uplink.js").Way} Way
 */

const NO_WAY = Object.freeze({ waitingSeconds: 0, droppedSeconds: 0, roundTripMs: null, bitsPerSecond: 0 });
const NO_RELAY = Object.freeze({ stats: null, heldBack: false });

const Emitter = /** @type {new () => import("./player/types.js").TypedEventTarget<BroadcasterEventMap>} */ (
  EventTarget
);

export class Broadcaster extends Emitter {
  /** @type {State} */
  #state = "idle";
  /** @type {Problem | null} */
  #problem = null;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {Source | null} */
  #source = null;
  /** @type {AudioWorkletNode | null} */
  #node = null;
  /** @type {Worker | null} */
  #worker = null;
  /** @type {Omit<Way, "type">} */
  #way = NO_WAY;
  /** @type {Said} */
  #relay = NO_RELAY;
  #silentSeconds = 0;
  #sinceClip = Infinity;
  #heardAt = 0;
  #muted = false;
  #speech = new SpeechWatch();
  /** @type {Target | null} */
  #target = null;
  /** @type {"pause" | "end" | null} */
  #farewell = null;
  #paused = false;

  get state() {
    return this.#state;
  }

  /** Why it stopped, failed or does not connect; otherwise null. */
  get problem() {
    return this.#problem;
  }

  /** What the way to the relay is like. */
  get way() {
    return this.#way;
  }

  /** What the relay said last. */
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

  /** Whether listeners get silence, whatever the source gives. */
  get muted() {
    return this.#muted;
  }

  /** Whether somebody speaks although it is muted. */
  get speaksMuted() {
    return this.#muted && this.#speech.isSpeaking;
  }

  /** Whether it left the session for a break, so that listeners wait. */
  get paused() {
    return this.#paused;
  }

  /** How long the browser has given no sound at all, as it does while a telephone rings. */
  get unheardSeconds() {
    return (performance.now() - this.#heardAt) / 1000;
  }

  /**
   * Goes live. Browsers allow this only to a call from within a click or a key press.
   *
   * @param {Opener} openSource
   * @param {Target} target
   */
  async start(openSource, target) {
    if (this.#state === "rehearsing") {
      this.#setState("starting");
    } else if (!(await this.#open(openSource))) {
      return;
    }
    this.#target = target;
    this.#openUplink(target);
  }

  /**
   * Opens the source for its level alone; `start` goes live with it as it is. Likewise to be called within a click.
   *
   * @param {Opener} openSource
   */
  async rehearse(openSource) {
    if (await this.#open(openSource)) {
      this.#source?.begin();
      this.#setState("rehearsing");
    }
  }

  /**
   * @returns {Promise<boolean>} whether the source is open; what failed shows in the state.
   * @param {Opener} openSource
   */
  async #open(openSource) {
    const context = new AudioContext({ latencyHint: "interactive" });
    this.#context = context;
    this.#silentSeconds = 0;
    this.#sinceClip = Infinity;
    this.#way = NO_WAY;
    this.#relay = NO_RELAY;
    this.#setState("starting");
    // A telephone call suspends the context; the broadcast goes on behind it. Closing it rejects what is pending.
    const resume = () => {
      if (context.state === "suspended") {
        context.resume().catch(() => {});
      }
    };
    context.onstatechange = resume;
    resume();
    const module = new URL("./capture-processor.js", import.meta.url);
    // The source first, while this is the click itself.
    const [opened, loaded] = await Promise.allSettled([openSource(context), context.audioWorklet.addModule(module)]);
    try {
      if (this.#context !== context) {
        if (opened.status === "fulfilled") {
          opened.value.close();
        }
        return false;
      }
      if (opened.status === "rejected") {
        throw opened.reason;
      }
      this.#source = opened.value;
      if (loaded.status === "rejected") {
        throw loaded.reason;
      }
      this.#connect(context, opened.value);
      return true;
    } catch (error) {
      this.#close("failed", problemOf(error));
      return false;
    }
  }

  /**
   * Takes another source while it runs. The present one is closed before, because a browser goes on with the
   * processing of a microphone that is open, whatever is asked for; when the other can not be opened there is silence.
   *
   * @param {Opener} openSource
   * @throws {SourceError}
   */
  async changeSource(openSource) {
    const [context, node] = [this.#context, this.#node];
    if (context === null || node === null) {
      return;
    }
    this.#source?.node.disconnect();
    this.#source?.close();
    const source = await openSource(context);
    if (this.#context !== context) {
      source.close();
      return;
    }
    this.#source = source;
    source.node.connect(node);
    source.begin();
  }

  /**
   * Sends silence from now on, or sound again, and informs the listeners. The mute ends with the broadcast.
   *
   * @param {boolean} on
   */
  mute(on) {
    if (this.#worker !== null && this.#node !== null && on !== this.#muted) {
      this.#muted = on;
      this.#speech = new SpeechWatch();
      this.#node.port.postMessage({ muted: on });
      this.#order({ type: "mute", on });
      this.dispatchEvent(new Event("statechange"));
    }
  }

  /** Stops for a break: what waits is sent, then the relay tells the listeners to wait. */
  pause() {
    if (this.#state === "live") {
      this.#leave("pause");
    } else {
      // The relay waits for a broadcaster that is gone, and so do the listeners.
      this.#paused ||= this.#state === "reconnecting";
      this.#close("idle", this.#paused ? { code: "paused" } : null);
    }
  }

  /** Ends the broadcast: what waits is sent, then the relay tells the listeners that the session is over. */
  stop() {
    if (this.#state === "live") {
      this.#leave("end");
    } else if (this.#paused && this.#worker === null && this.#target !== null) {
      this.#openUplink(this.#target);
      this.#leave("end");
    } else {
      this.#close("idle");
    }
  }

  /** @param {"pause" | "end"} farewell */
  #leave(farewell) {
    this.#farewell = farewell;
    this.#setState("stopping");
    this.#source?.close();
    this.#order({ type: farewell });
  }

  /**
   * Ends it because the source is lost; the relay keeps the listeners for a while in case it comes back.
   *
   * @param {Error} error Why it could not be opened again.
   */
  abort(error) {
    this.#close("failed", problemOf(error));
  }

  /** @param {import("./uplink-worker.js").Order} order */
  #order(order) {
    this.#worker?.postMessage(order);
  }

  /**
   * @param {AudioContext} context
   * @param {Source} source
   */
  #connect(context, source) {
    const node = new AudioWorkletNode(context, "relay-capture", {
      channelCount: 2,
      channelCountMode: "clamped-max",
      channelInterpretation: "speakers",
    });
    this.#heardAt = performance.now();
    node.port.onmessage = ({ data }) => this.#takeLevel(data);
    this.#node = node;
    // Only what leads to the speakers is sure to run; the worklet's output is silence.
    source.node.connect(node).connect(context.destination);
  }

  /** @param {Target} target */
  #openUplink({ address, key }) {
    const worker = new Worker(new URL("./uplink-worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => this.#worker === worker && this.#hear(data);
    worker.onerror = () => this.#worker === worker && this.#close("failed", { code: "not-loaded" });
    this.#worker = worker;
    const { port1, port2 } = new MessageChannel();
    this.#node?.port.postMessage({ frames: port1 }, [port1]);
    const protocols = key ? [TOKEN_PREFIX + key] : [];
    worker.postMessage({ type: "open", address, protocols, frames: port2 }, [port2]);
  }

  /** @param {News} news */
  #hear(news) {
    switch (news.type) {
      case "state":
        this.#follow(news);
        return;
      case "rate":
        this.#node?.port.postMessage({ rate: news.rate });
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

  /** @param {import("./uplink.js").StateNews} news */
  #follow({ state, code, told }) {
    if (state === "stopped") {
      this.#takeLeave(code, told);
      return;
    }
    if (this.#state !== "stopping") {
      if (state === "live") {
        this.#paused = false;
        this.#source?.begin();
      }
      this.#setState(state, code === UNREACHABLE ? { code } : null);
    }
  }

  /**
   * @param {Code} code
   * @param {string} told
   */
  #takeLeave(code, told) {
    const isOver = code === SESSION_ENDED;
    const farewell = this.#state === "stopping" ? this.#farewell : null;
    if (isOver || code === "not-ended") {
      this.#paused = farewell === "pause" || !isOver;
    }
    const said = farewell === "pause" ? "paused" : "off-air";
    this.#close(isOver ? "idle" : "failed", isOver && farewell !== null ? { code: said } : { code, detail: told });
  }

  /** @param {import("./player/messages.js").ControlMessage} message */
  #takeMessage(message) {
    if (message.type === "stats") {
      this.#relay = { ...this.#relay, stats: message };
    } else if (message.type === "backpressure") {
      this.#relay = { ...this.#relay, heldBack: message.on === true };
    }
  }

  /** @param {Level} level */
  #takeLevel(level) {
    this.#heardAt = performance.now();
    this.#silentSeconds = level.rms < SILENT_RMS ? this.#silentSeconds + FRAME_SECONDS : 0;
    this.#speech.take(level.rms, FRAME_SECONDS);
    this.#sinceClip = level.peak >= CLIPPED_PEAK ? 0 : this.#sinceClip + FRAME_SECONDS;
    this.dispatchEvent(new CustomEvent("level", { detail: level }));
  }

  /**
   * @param {State} state
   * @param {Problem | null} [problem]
   */
  #close(state, problem = null) {
    this.#order({ type: "close" });
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
    this.#muted = false;
    this.#setState(state, problem);
  }

  /**
   * @param {State} state
   * @param {Problem | null} [problem]
   */
  #setState(state, problem = null) {
    if (state !== this.#state || problem !== this.#problem) {
      this.#state = state;
      this.#problem = problem;
      this.dispatchEvent(new Event("statechange"));
    }
  }
}

/**
 * @param {unknown} error
 * @returns {Problem}
 */
function problemOf(error) {
  return error instanceof SourceError ? { code: error.code, detail: error.message } : { code: "not-loaded" };
}
