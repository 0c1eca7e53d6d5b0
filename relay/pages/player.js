/**
 * Plays one channel: a socket to the relay, an audio worklet that buffers and resamples, and a state for a person.
 *
 * Events: `statechange` when `state` or `sentence` changed, `report` about ten times a second while it runs.
 *
 * States:
 *   idle          not started, or stopped by the person
 *   connecting    no answer from the relay yet
 *   waiting       connected; the broadcaster is not there
 *   buffering     the start-up buffer fills, the first time or again
 *   playing
 *   reconnecting  the connection is gone, what was buffered has been played, another attempt is under way
 *   blocked       the browser holds the sound back until the person presses Play again
 *   ended         the session is over
 *   failed        it can not go on; `sentence` says why
 */

import { RelaySocket } from "./relay-socket.js";
import { readFrame } from "./wire.js";

const REPORT_INTERVAL_MS = 100;
const SESSION_ENDED = 1000;

/** A context that was just made does not run for a moment; one that does not run for longer is held back. */
const BLOCKED_AFTER_MS = 1000;

/** What the last of the buffer may take to play after the session ended, or the audio clock stands still. */
const FAREWELL_MS = 5000;

/** The resampler keeps the last few samples, which wait for those behind them; they are not worth waiting for. */
const REMNANT_SECONDS = 0.02;

const NOTHING_YET = Object.freeze({ playing: false, heldSeconds: 0, underruns: 0, skippedSeconds: 0 });

export class Player extends EventTarget {
  #address;
  #volume = 1;
  #state = "idle";
  #sentence = "";
  #socket = null;
  #context = null;
  #output = null;
  #node = null;
  #timer;
  #live = false;
  #link = "connecting";
  #format = null;
  #report = NOTHING_YET;
  #gaps = 0;
  #stalledMs = 0;
  #farewell = null;

  /** @param {string} address of the listener's WebSocket, see `streamAddress`. */
  constructor(address) {
    super();
    this.#address = address;
  }

  get state() {
    return this.#state;
  }

  /** Why it `ended` or `failed`, for a person; otherwise empty. */
  get sentence() {
    return this.#sentence;
  }

  /** What the channel sends, {codec, rate, channels}, or null while nobody has said. */
  get format() {
    return this.#format;
  }

  /** The last report of the audio thread: {playing, heldSeconds, underruns, skippedSeconds}. */
  get report() {
    return this.#report;
  }

  /** How often the sound stopped, or part of it was lost on the way, since the start. */
  get interruptions() {
    return this.#report.underruns + this.#gaps;
  }

  /** The AudioContext while it runs, else null. */
  get context() {
    return this.#context;
  }

  /** The last node before the speakers, for a meter or a recorder, while it runs, else null. */
  get output() {
    return this.#output;
  }

  /** The gain, 0 to 1. */
  get volume() {
    return this.#volume;
  }

  set volume(gain) {
    this.#volume = gain;
    this.#output?.gain.setTargetAtTime(gain, this.#context.currentTime, 0.01);
  }

  /** Starts, or goes on when `blocked`. Browsers allow sound only to a call from within a click or a key press. */
  async play() {
    if (this.#context !== null) {
      resume(this.#context);
      return;
    }
    if (globalThis.AudioWorklet === undefined) {
      this.#close("failed", unsupportedSentence());
      return;
    }
    // Without this an iPhone's mute switch silences the page.
    if (navigator.audioSession !== undefined) {
      navigator.audioSession.type = "playback";
    }
    const context = new AudioContext();
    this.#context = context;
    this.#setState("connecting");
    resume(context);
    this.#output = new GainNode(context, { gain: this.#volume });
    this.#output.connect(context.destination);
    try {
      await context.audioWorklet.addModule(new URL("./playback-processor.js", import.meta.url));
    } catch {
      if (this.#context === context) {
        this.#close("failed", "The player could not be loaded. Reload the page.");
      }
      return;
    }
    if (this.#context === context) {
      this.#start(context);
    }
  }

  /** Stops at once. */
  stop() {
    this.#close("idle", "");
  }

  #start(context) {
    this.#node = new AudioWorkletNode(context, "relay-playback", { numberOfInputs: 0, outputChannelCount: [2] });
    this.#node.connect(this.#output);
    this.#node.port.onmessage = ({ data }) => this.#takeReport(data);
    this.#timer = setInterval(() => this.#askForReport(), REPORT_INTERVAL_MS);
    const socket = new RelaySocket(this.#address);
    socket.addEventListener("hello", ({ detail }) => this.#greet(detail));
    socket.addEventListener("message", ({ detail }) => this.#obey(detail));
    socket.addEventListener("audio", ({ detail }) => this.#takeAudio(detail));
    socket.addEventListener("down", () => this.#lose());
    socket.addEventListener("stop", ({ detail }) => this.#end(detail));
    this.#socket = socket;
    this.#link = "connecting";
    socket.open();
  }

  #greet(hello) {
    this.#link = "up";
    this.#setLive(hello.state);
    this.#setFormat(hello.format);
  }

  #obey(message) {
    if (message.type === "state") {
      this.#setLive(message.state);
    } else if (message.type === "format") {
      this.#setFormat(message.format);
    } else if (message.type === "gap") {
      this.#gaps += 1;
    }
  }

  #setLive(channelState) {
    this.#live = channelState === "live";
    if (!this.#live) {
      this.#node.port.postMessage({ type: "drain" });
    }
    this.#update();
  }

  #setFormat(format) {
    if (!format) {
      return;
    }
    if (format.codec !== "pcm_s16le") {
      this.#close("failed", `This player does not know the codec ${format.codec}. Reload the page.`);
      return;
    }
    this.#format = format;
    this.#node.port.postMessage({ type: "format", rate: format.rate, channels: format.channels });
    this.#update();
  }

  #takeAudio(message) {
    let samples;
    try {
      ({ samples } = readFrame(message));
    } catch {
      this.#close("failed", "This player does not understand the relay's audio. Reload the page.");
      return;
    }
    this.#node.port.postMessage({ type: "audio", samples }, [message]);
  }

  #askForReport() {
    this.#stalledMs = this.#context.state === "running" ? 0 : this.#stalledMs + REPORT_INTERVAL_MS;
    this.#node.port.postMessage({ type: "report" });
    this.#update();
  }

  #takeReport(report) {
    this.#report = report;
    this.dispatchEvent(new Event("report"));
    this.#update();
  }

  #lose() {
    this.#link = "down";
    this.#node.port.postMessage({ type: "drain" });
    this.#update();
  }

  #end({ code, sentence }) {
    if (code !== SESSION_ENDED) {
      this.#close("failed", sentence);
      return;
    }
    this.#farewell = { sentence, deadline: performance.now() + FAREWELL_MS };
    this.#node.port.postMessage({ type: "drain" });
  }

  #update() {
    if (this.#context === null) {
      return;
    }
    if (this.#farewell !== null) {
      const { sentence, deadline } = this.#farewell;
      const played = !this.#report.playing && this.#report.heldSeconds < REMNANT_SECONDS;
      if (played || performance.now() > deadline) {
        this.#close("ended", sentence);
      }
      return;
    }
    this.#setState(this.#stateNow());
  }

  #stateNow() {
    if (this.#stalledMs >= BLOCKED_AFTER_MS) {
      return "blocked";
    }
    if (this.#report.playing) {
      return "playing";
    }
    if (this.#link === "up") {
      return this.#live ? "buffering" : "waiting";
    }
    return this.#link === "down" ? "reconnecting" : "connecting";
  }

  #close(state, sentence) {
    clearInterval(this.#timer);
    this.#socket?.close();
    this.#context?.close();
    this.#socket = null;
    this.#context = null;
    this.#output = null;
    this.#node = null;
    this.#farewell = null;
    this.#live = false;
    this.#format = null;
    this.#report = NOTHING_YET;
    this.#gaps = 0;
    this.#stalledMs = 0;
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

/** Lets a context run. That it may not, or was closed meanwhile, is no error: it shows in the state. */
function resume(context) {
  context.resume().catch(() => {});
}

function unsupportedSentence() {
  return globalThis.isSecureContext
    ? "This browser is too old to play live audio. Use a current one."
    : "Browsers play live audio only on a page that came over HTTPS, or from this same computer. " +
        "Ask for an https:// address.";
}
