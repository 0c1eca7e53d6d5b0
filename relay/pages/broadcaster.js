/**
 * Sends one source's sound to a channel: a worklet that makes frames, a bounded queue, a socket to the relay.
 *
 * Events: `statechange` when `state` or `sentence` changed, `level` for every frame, detail {peak, rms}.
 *
 * States:
 *   idle          not started, or stopped; `sentence` may say why
 *   starting      the source is being opened
 *   connecting    no answer from the relay yet
 *   live
 *   reconnecting  the connection is gone and another attempt is under way; the sound of that time is lost
 *   stopping      the relay has been told that this was all
 *   failed        `sentence` says why
 */

import { BROADCAST_FORMAT, FRAME_SECONDS } from "./capture.js";
import { RelaySocket } from "./relay-socket.js";
import { SendQueue } from "./send-queue.js";
import { SourceError } from "./sources.js";
import { TOKEN_PREFIX, isFinal } from "./wire.js";

const BYTES_PER_SECOND = 2 * BROADCAST_FORMAT.rate * BROADCAST_FORMAT.channels;
const CHANNEL_BUSY = 4503;
const SESSION_ENDED = 1000;

/** After a connection broke, the relay takes it for alive until a ping stays unanswered, and calls the channel busy. */
const GHOST_MS = 40_000;

/** How long the relay may take to say good-bye. */
const FAREWELL_MS = 3000;

const OFF_AIR = "You are off the air.";

/** Below this (-60 dB) a frame counts as silent. */
const SILENT_RMS = 0.001;

export class Broadcaster extends EventTarget {
  #address;
  #state = "idle";
  #sentence = "";
  #context = null;
  #source = null;
  #node = null;
  #socket = null;
  #queue = null;
  #lostAt = -Infinity;
  #silentSeconds = 0;
  #closeCode = null;
  #farewell;

  /** @param {string} address of the broadcaster's WebSocket, with `BROADCAST_FORMAT` as its query. */
  constructor(address) {
    super();
    this.#address = address;
  }

  get state() {
    return this.#state;
  }

  /** Why it stopped or failed, for a person; otherwise empty. */
  get sentence() {
    return this.#sentence;
  }

  /** The code with which the relay refused or ended the last broadcast, or null. */
  get closeCode() {
    return this.#closeCode;
  }

  /** How late the sound leaves this browser. */
  get waitingSeconds() {
    return this.#queue?.waitingSeconds ?? 0;
  }

  /** How much of the sound was lost since the start, because the connection was too slow or gone. */
  get droppedSeconds() {
    return this.#queue?.droppedSeconds ?? 0;
  }

  /** How long the source has been silent without a break. */
  get silentSeconds() {
    return this.#silentSeconds;
  }

  /**
   * Goes live. Browsers allow this only to a call from within a click or a key press.
   *
   * @param {(context: AudioContext) => Promise<{node: AudioNode, begin: () => void, close: () => void}>} openSource
   * @param {string} key The relay's broadcast key, or an empty string.
   */
  async start(openSource, key) {
    const context = new AudioContext();
    this.#context = context;
    this.#silentSeconds = 0;
    this.#closeCode = null;
    this.#lostAt = -Infinity;
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
        return;
      }
      this.#connectSource(source);
    } catch (error) {
      if (this.#context === context) {
        this.#close("failed", sentenceOf(error));
      }
      return;
    }
    this.#openSocket(key);
  }

  /**
   * Takes another source while it runs; the present one stays when the other can not be opened.
   *
   * @throws {SourceError}
   */
  async changeSource(openSource) {
    const context = this.#context;
    const source = await openSource(context);
    if (this.#context !== context) {
      source.close();
      return;
    }
    this.#source.node.disconnect();
    this.#source.close();
    this.#source = source;
    source.node.connect(this.#node);
    source.begin();
  }

  /** Ends the broadcast: what waits is sent, then the relay tells the listeners that the session is over. */
  stop() {
    if (!this.#socket?.accepted) {
      this.#close("idle", "");
      return;
    }
    this.#setState("stopping");
    this.#source.close();
    this.#queue.flush();
    this.#socket.send({ type: "end" });
    this.#farewell = setTimeout(() => this.#close("idle", OFF_AIR), FAREWELL_MS);
  }

  /** Ends it because the source is lost; the relay keeps the listeners for a while in case it comes back. */
  abort(sentence) {
    this.#close("failed", sentence);
  }

  #connectSource(source) {
    this.#source = source;
    this.#node = new AudioWorkletNode(this.#context, "relay-capture", {
      channelCount: 1,
      channelCountMode: "explicit",
      channelInterpretation: "speakers",
    });
    this.#node.port.onmessage = ({ data }) => this.#takeFrame(data);
    // Only what leads to the speakers is sure to run; the worklet's output is silence.
    source.node.connect(this.#node).connect(this.#context.destination);
  }

  #openSocket(key) {
    this.#setState("connecting");
    const socket = new RelaySocket(this.#address, {
      protocols: key ? [TOKEN_PREFIX + key] : [],
      isFinal: (code) => isFinal(code) && !(code === CHANNEL_BUSY && performance.now() - this.#lostAt < GHOST_MS),
    });
    this.#socket = socket;
    this.#queue = new SendQueue(socket, BYTES_PER_SECOND);
    socket.addEventListener("hello", () => {
      this.#source.begin();
      this.#setState("live");
    });
    socket.addEventListener("down", () => this.#lose());
    socket.addEventListener("stop", ({ detail }) => this.#end(detail));
    socket.open();
  }

  #takeFrame({ pcm, peak, rms }) {
    this.#silentSeconds = rms < SILENT_RMS ? this.#silentSeconds + FRAME_SECONDS : 0;
    if (this.#state === "live") {
      this.#queue.push(pcm);
    } else if (this.#state === "reconnecting" && this.#lostAt > -Infinity) {
      this.#queue.drop(pcm);
    }
    this.dispatchEvent(new CustomEvent("level", { detail: { peak, rms } }));
  }

  #lose() {
    if (this.#state === "stopping") {
      this.#close("idle", OFF_AIR);
      return;
    }
    if (this.#state === "live") {
      this.#lostAt = performance.now();
    }
    this.#setState("reconnecting");
  }

  #end({ code, sentence }) {
    if (this.#state === "stopping") {
      this.#close("idle", OFF_AIR);
    } else {
      this.#closeCode = code;
      this.#close(code === SESSION_ENDED ? "idle" : "failed", sentence);
    }
  }

  #close(state, sentence) {
    clearTimeout(this.#farewell);
    this.#socket?.close();
    this.#source?.close();
    this.#context?.close();
    this.#socket = null;
    this.#source = null;
    this.#context = null;
    this.#node = null;
    this.#queue = null;
    this.#setState(state, sentence);
  }

  #setState(state, sentence = "") {
    if (state !== this.#state || sentence !== this.#sentence) {
      this.#state = state;
      this.#sentence = sentence;
      this.dispatchEvent(new Event("statechange"));
    }
  }
}

function sentenceOf(error) {
  return error instanceof SourceError ? error.message : "The broadcaster could not be loaded. Reload the page.";
}
