/**
 * The player's public interface, which README.md describes. Only this part runs on the page's thread.
 */

import { HttpStream } from "./http-stream.js";
import { claimMediaSession, pauseMediaSession, releaseMediaSession, showMediaSession } from "./media-session.js";
import { Output, prefetchOutput } from "./output.js";
import { UNREACHABLE } from "./relay-socket.js";
import { FLOORS_MS, isLatency } from "./target-delay.js";
import { isKey, isName, OPUS, PCM } from "./wire.js";

/**
 * @typedef {import("./types.js").Channel} Channel
 * @typedef {import("./types.js").Latency} Latency
 * @typedef {import("./types.js").PlayerCode} PlayerCode
 * @typedef {import("./types.js").PlayerState} PlayerState
 * @typedef {import("./types.js").PlayerStats} PlayerStats
 * @typedef {import("./types.js").RelayPlayerEventMap} RelayPlayerEventMap
 * @typedef {import("./types.js").Silence} Silence
 * @typedef {Readonly<import("./messages.js").Status>} Status
 */

const SPEAKER_INTERVAL_MS = 250;

/** After this many new contexts that get stuck, the person has to click. */
const MOST_REBUILDS = 3;

/** @type {ReadonlySet<PlayerState>} */
const STOPPED = new Set(["idle", "failed", "ended"]);

/**
 * States in which a change of the code alone fires `statechange`.
 *
 * @type {ReadonlySet<PlayerState>}
 */
const TOLD_AGAIN = new Set(["waiting", "playing"]);

/** Conditions in which a context may never continue. A click replaces it. */
const RENEWABLE = new Set(["stuck", "interrupted"]);

/** @type {Status} */
const IDLE = Object.freeze({ state: "idle", reason: "", code: null, retryInMs: null });
/** @type {Status} */
const CONNECTING = Object.freeze({ ...IDLE, state: "connecting" });
/** @type {Status} */
const NOT_LOADED = Object.freeze({
  ...IDLE,
  state: "failed",
  reason: "The player could not be loaded. Reload the page.",
  code: "not-loaded",
});

/**
 * The player's state while it plays an HTTP stream.
 *
 * @type {Readonly<Partial<Record<import("./http-stream.js").StreamState, PlayerState>>>}
 */
const STREAM_STATES = Object.freeze({ playing: "playing", stalled: "rebuffering", blocked: "blocked" });

const STREAMING = Object.freeze({
  reason: "This network refuses WebSockets, so an ordinary stream is played. It is several seconds late.",
  code: "http",
  retryInMs: null,
});

/** @type {PlayerStats} */
const NO_STATS = Object.freeze({
  bufferMs: 0,
  targetMs: 0,
  playoutMs: 0,
  delayMs: null,
  underruns: 0,
  jumps: 0,
  jumpedMs: 0,
  concealedMs: 0,
  gaps: 0,
  gapMs: 0,
  driftPpm: 0,
  rate: 1,
  reconnects: 0,
  codec: null,
  bitsPerSecond: 0,
});

const Emitter = /** @type {new () => import("./types.js").TypedEventTarget<RelayPlayerEventMap>} */ (EventTarget);

export class RelayPlayer extends Emitter {
  #url;
  #session;
  #channel;
  #wanted;
  #token;
  #latency;
  #volume;
  #saveData;
  #codec;
  /** @type {Worker | null} */
  #worker = null;
  /** @type {Output | null} */
  #output = null;
  /** Plays while no WebSocket connection is possible. @type {HttpStream | null} */
  #stream = null;
  #run = 0;
  #rebuilds = 0;
  /** @type {PlayerState} */
  #state = "idle";
  /** @type {PlayerCode | null} */
  #toldCode = null;
  /** @type {Status} */
  #status = IDLE;
  /** @type {PlayerStats} */
  #stats = NO_STATS;
  /** @type {readonly Channel[]} */
  #channels = [];
  /** @type {Silence | null} */
  #silence = null;
  /** @type {string | null} */
  #sessionName = null;
  /** @type {number | undefined} */
  #timer;

  /**
   * @param {import("./types.js").RelayPlayerOptions} options
   * @throws {TypeError} if an option is invalid.
   */
  constructor({
    url = null,
    session,
    channel = "main",
    token = null,
    latency = "balanced",
    volume = 1,
    saveData = null,
    codec = OPUS,
  }) {
    super();
    checkName("session", session);
    checkName("channel", channel);
    checkToken(token);
    checkLatency(latency);
    checkCodec(codec);
    this.#url = url ?? location.origin;
    this.#session = session;
    this.#channel = channel;
    this.#wanted = channel;
    this.#token = token;
    this.#latency = latency;
    this.#volume = volume;
    this.#saveData = saveData;
    this.#codec = codec;
    this.#prepare();
  }

  get state() {
    return this.#state;
  }

  /** Why the player failed, ended or has no connection, as a sentence; otherwise "". */
  get reason() {
    return this.#shown.reason;
  }

  /** The reason as a code, which README.md lists; otherwise null. */
  get code() {
    return this.#shown.code;
  }

  /** The broadcaster's reason for silence: "muted", "paused" or null. */
  get silence() {
    return this.#silence;
  }

  get session() {
    return this.#session;
  }

  /** The channel that plays, or that `play` would start. */
  get channel() {
    return this.#channel;
  }

  /** The channels of the session; empty before the relay lists them. */
  get channels() {
    return this.#channels;
  }

  /** The session's title, or null. */
  get sessionName() {
    return this.#sessionName;
  }

  /** The statistics of the last `stats` event. */
  get stats() {
    return this.#stats;
  }

  /** The AudioContext while it plays, else null. */
  get context() {
    return this.#output?.context ?? null;
  }

  /** The last AudioNode before the speakers while it plays, else null. */
  get output() {
    return this.#output?.node ?? null;
  }

  get latency() {
    return this.#latency;
  }

  set latency(preset) {
    checkLatency(preset);
    this.#latency = preset;
    this.#post({ type: "latency", preset });
  }

  /** Whether the player saves data: as set, or else as the browser's user prefers. @returns {boolean} */
  get saveData() {
    return this.#saveData ?? navigator.connection?.saveData === true;
  }

  /** @param {boolean | null} isOn Null follows the browser's setting. */
  set saveData(isOn) {
    this.#saveData = isOn;
    this.#post({ type: "save-data", isOn: this.saveData });
  }

  /** The preferred codec. `stats` contains the actual one. */
  get codec() {
    return this.#codec;
  }

  set codec(codec) {
    checkCodec(codec);
    this.#codec = codec;
    this.#post({ type: "codec", codec });
  }

  get volume() {
    return this.#volume;
  }

  set volume(gain) {
    this.#volume = gain;
    if (this.#output !== null) {
      this.#output.volume = gain;
    }
    if (this.#stream !== null) {
      this.#stream.volume = gain;
    }
  }

  /**
   * Sets the token of the next connection, for example after the notice 4001 that the old token has expired.
   *
   * @param {string | null} token
   */
  set token(token) {
    checkToken(token);
    this.#token = token;
    this.#post({ type: "token", token });
  }

  /**
   * Starts, or continues if `blocked` or `interrupted`. Call it from a click or key handler; otherwise browsers block
   * the sound.
   *
   * @returns {Promise<void>} Resolves once the audio thread runs. A failure shows in the state, not here.
   */
  async play() {
    if (this.#output !== null) {
      this.#stream?.play();
      this.#rebuilds = 0;
      showMediaSession(this);
      if (RENEWABLE.has(this.#output.condition)) {
        await this.#rebuild();
      } else {
        this.#output.resume();
      }
      return;
    }
    this.#run += 1;
    this.#rebuilds = 0;
    this.#status = CONNECTING;
    this.#stats = NO_STATS;
    if (this.#worker === null) {
      this.#prepare();
    }
    const request = {
      url: this.#url,
      session: this.#session,
      channel: this.#channel,
      token: this.#token,
      latency: this.#latency,
      saveData: this.saveData,
      codec: this.#codec,
    };
    this.#post({ type: "play", run: this.#run, request });
    this.#timer = setInterval(() => this.#tellLatency(), SPEAKER_INTERVAL_MS);
    this.#claimMediaSession();
    const opening = this.#openOutput();
    this.#update();
    await opening;
  }

  /** Stops at once. */
  stop() {
    if (this.#output !== null) {
      this.#post({ type: "stop" });
      this.#end(IDLE);
    } else if (this.#state !== "idle") {
      this.#status = IDLE;
      this.#update();
    }
  }

  /**
   * Switches to another channel of the session, at once or at the next start.
   *
   * @param {string} id
   */
  switchChannel(id) {
    checkName("channel", id);
    this.#wanted = id;
    if (this.#output === null) {
      this.#channel = id;
    } else {
      this.#post({ type: "switch", channel: id });
    }
  }

  /** Stops and releases all resources. The player can be started again. */
  dispose() {
    this.stop();
    releaseMediaSession(this);
    this.#dismissWorker();
  }

  /** Loads modules that would delay `play` by some tenths of a second over a slow network. */
  #prepare() {
    prefetchOutput();
    const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "relay-player" });
    worker.onmessage = ({ data }) => this.#hear(data);
    worker.onerror = () => {
      this.#dismissWorker();
      if (this.#output !== null) {
        this.#end(NOT_LOADED);
      }
    };
    this.#worker = worker;
  }

  #dismissWorker() {
    if (this.#worker !== null) {
      this.#worker.onerror = null;
      this.#worker.terminate();
      this.#worker = null;
    }
  }

  async #openOutput() {
    /** @type {Output | null} */
    let output = null;
    try {
      const made = new Output({ volume: this.#volume, latency: this.#latency });
      output = made;
      this.#output = made;
      made.addEventListener("condition", () => this.#follow(made));
      const port = await made.open();
      if (this.#output === made) {
        this.#post({ type: "port", port }, [port]);
        this.#post({ type: "running", isRunning: made.context.state === "running" });
      }
    } catch {
      if (this.#output === output) {
        this.#post({ type: "stop" });
        this.#end(NOT_LOADED);
      }
    }
  }

  async #rebuild() {
    this.#output?.close();
    this.#output = null;
    // Without a port, the Worker keeps the sound until the new audio thread is ready.
    this.#post({ type: "port", port: null });
    await this.#openOutput();
  }

  /** @param {Output} output */
  #follow(output) {
    if (output !== this.#output) {
      return;
    }
    this.#post({ type: "running", isRunning: output.condition === "running" });
    if (output.condition === "stuck" && this.#rebuilds < MOST_REBUILDS) {
      this.#rebuilds += 1;
      this.#rebuild();
    }
    this.#update();
  }

  /** @param {import("./messages.js").WorkerMessage} news */
  #hear({ run, ...message }) {
    if (run !== this.#run || this.#output === null) {
      return;
    }
    switch (message.type) {
      case "status":
        if (STOPPED.has(message.state)) {
          this.#end(message);
        } else {
          this.#status = message;
          this.#chooseStream();
          this.#update();
        }
        break;
      case "stats":
        this.#stats = message.stats;
        this.#fire("stats", this.#stats);
        break;
      case "channel":
        this.#channel = message.channel;
        this.#wanted = message.channel;
        this.#claimMediaSession();
        break;
      case "channels":
        this.#channels = message.channels;
        this.#sessionName = message.sessionName ?? null;
        this.#claimMediaSession();
        this.#fire("channels", this.#channels);
        break;
      case "silence":
        this.#silence = message.silence;
        this.#fire("silence", { silence: message.silence });
        break;
      case "notice":
        this.#fire("notice", { code: message.code, message: message.message });
        break;
    }
  }

  /**
   * Plays an HTTP stream while no WebSocket connection is possible. With the next attempt, a failed stream restarts, and
   * another channel gets its own.
   */
  #chooseStream() {
    const isUnreachable = this.#status.code === UNREACHABLE;
    if (!isUnreachable || this.#stream?.state === "failed" || this.#stream?.channel !== this.#wanted) {
      this.#closeStream();
    }
    if (isUnreachable && this.#stream === null) {
      this.#stream = new HttpStream({
        url: this.#url,
        session: this.#session,
        channel: this.#wanted,
        token: this.#token,
        volume: this.#volume,
      });
      this.#stream.addEventListener("change", () => this.#update());
    }
  }

  #closeStream() {
    this.#stream?.close();
    this.#stream = null;
  }

  #claimMediaSession() {
    const title = this.#channels.find(({ id }) => id === this.#channel)?.name ?? this.#channel;
    claimMediaSession(this, { title, artist: this.#sessionName ?? this.#session });
  }

  #tellLatency() {
    if (this.#output !== null) {
      this.#post({ type: "speaker", ms: this.#output.readLatencyMs() });
    }
  }

  /** @param {Status} status */
  #end(status) {
    clearInterval(this.#timer);
    this.#output?.close();
    this.#output = null;
    this.#closeStream();
    this.#channel = this.#wanted;
    this.#silence = null;
    pauseMediaSession(this);
    this.#status = status;
    this.#update();
  }

  /** The Worker's status, or that of the HTTP stream while it plays. @returns {Status} */
  get #shown() {
    const state = STREAM_STATES[this.#stream?.state ?? "failed"];
    return state === undefined ? this.#status : { ...STREAMING, state };
  }

  #update() {
    const shown = this.#shown;
    const condition = this.#output?.condition;
    const isHeldBack = condition === "blocked" || (condition === "stuck" && this.#rebuilds >= MOST_REBUILDS);
    const state = isHeldBack ? "blocked" : condition === "interrupted" ? "interrupted" : shown.state;
    const previous = this.#state;
    const { reason, code, retryInMs } = shown;
    const isRetry = state === shown.state && retryInMs !== null;
    const isOther = TOLD_AGAIN.has(state) && code !== this.#toldCode;
    if (state !== previous || isRetry || isOther) {
      this.#toldCode = code;
      this.#state = state;
      if (state === "playing") {
        showMediaSession(this);
      }
      this.#fire("statechange", { state, previous, reason, code, retryInMs });
    }
  }

  /**
   * @param {import("./messages.js").PageMessage} message
   * @param {Transferable[]} [transfer]
   */
  #post(message, transfer = []) {
    this.#worker?.postMessage(message, transfer);
  }

  /**
   * @template {keyof RelayPlayerEventMap} Type
   * @param {Type} type
   * @param {RelayPlayerEventMap[Type]["detail"]} detail
   */
  #fire(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/**
 * @param {string} what
 * @param {string} name
 */
function checkName(what, name) {
  if (!isName(name)) {
    throw new TypeError(`The ${what} ${JSON.stringify(name)} must have 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -`);
  }
}

/** @param {string | null} token */
function checkToken(token) {
  if (token !== null && !isKey(token)) {
    throw new TypeError("The token must have 8 to 4096 of the characters A-Z a-z 0-9 . _ ~ -");
  }
}

/** @param {Latency} preset */
function checkLatency(preset) {
  if (!isLatency(preset)) {
    throw new TypeError(`The latency must be ${Object.keys(FLOORS_MS).join(", ")}, not ${JSON.stringify(preset)}`);
  }
}

/** @param {import("./types.js").Codec} codec */
function checkCodec(codec) {
  if (codec !== OPUS && codec !== PCM) {
    throw new TypeError(`The codec ${JSON.stringify(codec)} is none of ${OPUS}, ${PCM}`);
  }
}
