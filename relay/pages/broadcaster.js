/**
 * Broadcasts the sound of one source to a channel. A worklet makes frames of the sound, and a Worker sends them.
 *
 * States:
 *   idle          The broadcast has not started, or it has stopped.
 *   starting      The source is opening.
 *   rehearsing    The source is open and its level is known, but nothing is sent.
 *   connecting    The relay has not answered yet.
 *   live          The relay receives the sound.
 *   reconnecting  The connection broke, and the Worker connects again. It keeps the last 1.5 s of the sound.
 *   stopping      The Worker sends the rest of the sound, then ends the broadcast or announces a break.
 *   failed        The broadcast failed; `problem` says why.
 */

import { CLIPPED_PEAK, FRAME_SECONDS } from "./capture.js";
import { SourceError } from "./sources.js";
import { SpeechWatch } from "./speech-watch.js";
import { UNREACHABLE } from "./player/relay-socket.js";
import { TOKEN_PREFIX } from "./player/wire.js";

const SESSION_ENDED = 1000;

/** A frame below this level (-60 dB) counts as silent. */
const SILENT_RMS = 0.001;

/** How long `clipped` stays true after a clipped peak. */
const CLIP_SHOWN_SECONDS = 3;

/**
 * @typedef {"idle" | "starting" | "rehearsing" | "connecting" | "live" | "reconnecting" | "stopping" | "failed"} State
 *
 * @typedef {object} Problem
 * @property {Code | string} code A close code, or a name for the problem.
 * @property {string} [detail] More about the problem.
 *
 * @typedef {{peak: number, rms: number}} Level 1 is full scale.
 *
 * @typedef {object} Said What the relay has reported.
 * @property {import("./player/messages.js").BroadcastStats | null} stats
 * @property {boolean} heldBack Whether the relay has asked the broadcaster to stop sending for a moment.
 *
 * @typedef {object} Target
 * @property {string} address Address of the broadcaster's WebSocket, including the query except for the format.
 * @property {string} key The broadcast key or token, or an empty string.
 *
 * @typedef {object} BroadcasterEventMap
 * @property {Event} statechange `state`, `problem` or `muted` changed.
 * @property {CustomEvent<Level>} level Fired for every frame.
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
  /** The address of the latest attempt. */
  #address = "";
  /** The address of the latest attempt that was live. In a break, `end` ends the session there. */
  #liveAddress = "";
  /** @type {"pause" | "end" | null} */
  #farewell = null;
  #paused = false;

  get state() {
    return this.#state;
  }

  /** Why the broadcast stopped, failed or cannot connect; null if there is no problem. */
  get problem() {
    return this.#problem;
  }

  /** The state of the path to the relay. */
  get way() {
    return this.#way;
  }

  /** The latest reports of the relay. */
  get relay() {
    return this.#relay;
  }

  /** The open source, or null; see sources.js. */
  get source() {
    return this.#source;
  }

  /** How long the source has been silent without interruption. */
  get silentSeconds() {
    return this.#silentSeconds;
  }

  /** Whether the sound has just clipped. */
  get clipped() {
    return this.#sinceClip < CLIP_SHOWN_SECONDS;
  }

  /** Whether listeners get silence instead of the source's sound. */
  get muted() {
    return this.#muted;
  }

  /** Whether somebody speaks while the broadcast is muted. */
  get speaksMuted() {
    return this.#muted && this.#speech.isSpeaking;
  }

  /** Whether the broadcast has stopped for a break, so listeners wait. */
  get paused() {
    return this.#paused;
  }

  /** How long the browser has delivered no sound at all. During a telephone call, for example, it delivers none. */
  get unheardSeconds() {
    return (performance.now() - this.#heardAt) / 1000;
  }

  /**
   * Goes live. Call it within a click or a key press, because browsers allow it only there.
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
    this.#address = target.address;
    this.#openUplink(target);
  }

  /**
   * Opens the source only to show its level. `start` then goes live with the same source. Call it within a click or a
   * key press.
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
   * @param {Opener} openSource
   * @returns {Promise<boolean>} Whether the source is open. If it is not, the state and the problem say why.
   */
  async #open(openSource) {
    const context = new AudioContext({ latencyHint: "interactive" });
    this.#context = context;
    this.#silentSeconds = 0;
    this.#sinceClip = Infinity;
    this.#way = NO_WAY;
    this.#relay = NO_RELAY;
    this.#setState("starting");
    // A telephone call suspends the context. Resuming it lets the broadcast continue after the call. If the context
    // closes meanwhile, the promise of `resume` is rejected.
    const resume = () => {
      if (context.state === "suspended") {
        context.resume().catch(() => {});
      }
    };
    context.onstatechange = resume;
    resume();
    const module = new URL("./capture-processor.js", import.meta.url);
    // Open the source first, while the browser still handles the click.
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
   * Changes to another source during a broadcast. It closes the present source first, because a browser applies the
   * present processing to a microphone that is still open, and ignores a request for another one. If the other source
   * cannot be opened, listeners hear silence.
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
   * Mutes or unmutes the broadcast, and informs the listeners. The end of a broadcast unmutes it.
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

  /**
   * Stops without ending the session. On the air, this is a break: the Worker sends the rest of the sound, then the
   * relay tells the listeners to wait.
   */
  stop() {
    if (this.#state === "live") {
      this.#leave("pause");
    } else {
      // If a broadcaster loses its connection, the relay and the listeners wait for it anyway.
      this.#paused ||= this.#state === "reconnecting";
      this.#close("idle", this.#paused ? { code: "paused" } : null);
    }
  }

  /**
   * Ends the session for the listeners, also during a break. On the air, the Worker first sends the rest of the sound.
   * If the connection is broken, it waits for the next attempt to connect.
   *
   * @param {string} [key] The present key. In a break, it takes a new connection to end the session.
   */
  end(key = "") {
    if (this.#state === "live" || this.#state === "reconnecting") {
      this.#leave("end");
    } else if (this.#paused && this.#worker === null) {
      this.#openUplink({ address: this.#liveAddress, key });
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
   * Ends the broadcast because the source is lost. The relay keeps the listeners for a while in case it returns.
   *
   * @param {Error} error Why the source could not be opened again.
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
    // A browser may not run a node that is not connected to the speakers. The worklet's output is silent.
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
        this.#liveAddress = this.#address;
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
      // Levels that are still on their way would move a meter that has been reset.
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
