/**
 * One run of the player, from `play` to `stop`: a connection to the relay and its conductor.
 *
 * It runs in the Worker and exchanges messages with the audio thread and the page, so sound continues even if the
 * browser throttles the page's timers. messages.d.ts describes the messages.
 */

import { BitRate } from "./bit-rate.js";
import { Choice } from "./choice.js";
import { BAD_REQUEST, SESSION_ENDED, TOKEN_EXPIRED, closeSentence } from "./close-codes.js";
import { Conductor } from "./conductor.js";
import { Delivery } from "./delivery.js";
import { RelaySocket, WORLD } from "./relay-socket.js";
import { SOURCE_LOST, statusOf } from "./status.js";
import { OPUS, PCM, TOKEN_PREFIX, addressAt } from "./wire.js";

const TICK_MS = 50;
const TICKS_PER_STATS = 5;

/** Limits the questions to the audio thread when frames are as short as 5 ms. */
const ASK_AT_MOST_EVERY_MS = 20;

/** Rare enough to be cheap, and often enough to see when a channel's listeners have trouble. */
const REPORT_INTERVAL_MS = 5000;

/** After a session's end, the rest of its sound plays. An audio thread that plays none for this long stands still. */
const STANDSTILL_MS = 5000;

/** How long a page may take to get a new token. */
const TOKEN_PATIENCE_MS = 10_000;

/**
 * @typedef {Readonly<Omit<import("./messages.js").Status, "state">>} Trouble
 */

/** @type {Trouble} */
const NO_TROUBLE = Object.freeze({ reason: "", code: null, retryInMs: null });

/** Reasons for silence that a broadcaster can give. */
const SILENCES = /** @type {const} */ (["muted", "paused"]);

/**
 * The trouble when a broadcaster was connected and is gone.
 *
 * @type {Trouble}
 */
const NO_SOURCE = Object.freeze({
  ...NO_TROUBLE,
  reason: "The broadcaster has paused or is cut off.",
  code: SOURCE_LOST,
});

/** States without a connection, in which there may be trouble to report. */
const TRYING = new Set(["connecting", "reconnecting"]);

export class Session {
  #request;
  #tell;
  #world;
  #conductor;
  #delivery;
  #bitRate = new BitRate();
  #choice;
  /** The delivery that was last asked for; null if the relay does not support that. @type {Delivery["wanted"] | null} */
  #askedDelivery = null;
  #socket;
  /** @type {MessagePort | null} */
  #port = null;
  #isRendering = false;
  /** @type {"connecting" | "up" | "down"} */
  #link = "connecting";
  #trouble = NO_TROUBLE;
  /** @type {{state: import("./types.js").PlayerState | null, trouble: Trouble}} */
  #told = { state: null, trouble: NO_TROUBLE };
  /** @type {import("./types.js").Silence | null} */
  #silence = null;
  /** @type {string | null} */
  #offeredToken = null;
  /** The channel of the last `hello`, and whether it has had a broadcaster since. */
  #greeted = { channel: "", hadSource: false };
  #reconnects = -1;
  #speakerMs = 0;
  /**
   * After the session's end: the reason, the sound that is left to play, and since when that has been the same.
   *
   * @type {{sentence: string, heldMs: number, sinceMs: number} | null}
   */
  #farewell = null;
  /** @type {number | null} */
  #timer = null;
  #ticks = 0;
  #askedMs = -Infinity;
  #reportedMs;
  #isOver = false;

  /**
   * @param {object} options
   * @param {import("./messages.js").Request} options.request
   * @param {(message: import("./messages.js").SessionMessage) => void} options.tell Sends a message to the page.
   * @param {typeof WORLD} [options.world]
   */
  constructor({ request, tell, world = WORLD }) {
    this.#request = { ...request };
    this.#tell = tell;
    this.#world = world;
    this.#reportedMs = world.now();
    this.#choice = new Choice(request.channel, request.codec);
    this.#delivery = new Delivery(request.latency, request.saveData);
    this.#conductor = new Conductor({
      latency: request.latency,
      send: (order, transfer = []) => this.#port?.postMessage(order, transfer),
      exhaust: () => this.#dropOpus(),
    });
    this.#socket = this.#makeSocket();
  }

  /** Starts the timer. It runs before the connection, while the Worker still looks for Opus decoders. */
  start() {
    this.#tick();
  }

  /**
   * Connects.
   *
   * @param {readonly import("./decoding.js").OpenDecoder[]} decoders Decoders for Opus, best first.
   */
  connect(decoders) {
    if (this.#isOver) {
      return;
    }
    this.#conductor.setDecoders(decoders);
    this.#choice.setPlayable(decoders.length > 0 ? [OPUS, PCM] : [PCM]);
    this.#socket.open();
  }

  stop() {
    this.#isOver = true;
    this.#conductor.close();
    this.#world.clearTimer(this.#timer);
    this.#socket.close();
    this.setPort(null);
  }

  /**
   * Sets the port to the audio thread, or null if there is none.
   *
   * @param {MessagePort | null} port
   */
  setPort(port) {
    this.#port?.close();
    this.#port = port;
    this.setRunning(false);
    if (port !== null) {
      port.onmessage = ({ data }) => {
        this.#conductor.answer(data, this.#world.now());
        this.#update();
      };
    }
  }

  /**
   * Sets whether the audio thread renders. It does not if its context is suspended or interrupted.
   *
   * @param {boolean} isRunning
   */
  setRunning(isRunning) {
    const isRendering = isRunning && this.#port !== null;
    if (isRendering !== this.#isRendering) {
      this.#isRendering = isRendering;
      this.#conductor.setRendering(isRendering);
      this.#update();
    }
  }

  /**
   * Sets the time from rendering to the speaker.
   *
   * @param {number} ms
   */
  setSpeakerLatency(ms) {
    this.#speakerMs = ms;
  }

  /** @param {import("./types.js").Latency} preset */
  setLatency(preset) {
    this.#conductor.setLatency(preset);
    this.#delivery.setLatency(preset);
    this.#askForDelivery();
  }

  /** @param {boolean} isOn */
  setSaveData(isOn) {
    this.#delivery.setSaveData(isOn);
    this.#askForDelivery();
  }

  /**
   * Sets the token of the next connection. If the session waits for a token, it connects at once.
   *
   * @param {string | null} token
   */
  setToken(token) {
    this.#request.token = token;
    if (this.#trouble.code === TOKEN_EXPIRED) {
      this.#socket.retryNow();
    }
  }

  /** @param {string} channel */
  switchChannel(channel) {
    this.#choice.setChannel(channel);
    this.#switch();
  }

  /**
   * Switches to another codec on the same connection.
   *
   * @param {import("./types.js").Codec} codec The codec to prefer, if it can be played.
   */
  setCodec(codec) {
    this.#choice.setCodec(codec);
    this.#switch();
  }

  /** Switches to PCM, because no decoder is left. */
  #dropOpus() {
    this.#choice.setPlayable([PCM]);
    this.#switch();
  }

  /** Asks the relay for the choice, if it is time. If the next attempt to connect is only scheduled, it comes at once. */
  #switch() {
    const { accepted, isWaiting } = this.#socket;
    const mayRetry = isWaiting && !this.#isTokenAwaited(this.#trouble.code);
    const step = this.#choice.step(accepted ? "open" : mayRetry ? "scheduled" : "opening", this.#world.now());
    if (step === "reconnect") {
      this.#reconnect();
    } else if (step === "retry") {
      this.#socket.retryNow();
    } else if (step !== null) {
      this.#socket.send({ type: "switch", ...step });
    }
  }

  /** Asks the relay to gather frames for as long as the player's delay hides that. */
  #askForDelivery() {
    const { wanted } = this.#delivery;
    const asked = this.#askedDelivery;
    if (asked === null || !this.#socket.accepted) {
      return;
    }
    if (asked.coalesce_ms !== wanted.coalesce_ms || asked.packet_ms !== wanted.packet_ms) {
      this.#askedDelivery = wanted;
      this.#socket.send({ type: "delivery", ...wanted });
    }
  }

  #makeSocket() {
    const { url, session } = this.#request;
    const socket = new RelaySocket(
      () => {
        const { channel } = this.#choice;
        const codecs = this.#choice.connect();
        this.#askedDelivery = this.#delivery.wanted;
        const { coalesce_ms, packet_ms } = this.#askedDelivery;
        const query = {
          codec: codecs.join(","),
          coalesce_ms,
          ...(codecs.includes(OPUS) ? { packet_ms } : {}),
          ...this.#conductor.connectQuery(channel, this.#world.now()),
        };
        return addressAt(url, "listen", { session, channel }, query);
      },
      {
        protocols: () => {
          this.#offeredToken = this.#request.token;
          return this.#offeredToken ? [TOKEN_PREFIX + this.#offeredToken] : [];
        },
        bufferedMs: () => this.#conductor.heldMs,
        leastWaitMs: (code) => (this.#isTokenAwaited(code) ? TOKEN_PATIENCE_MS : 0),
        world: this.#world,
      },
    );
    socket.addEventListener("hello", ({ detail }) => this.#greet(detail));
    socket.addEventListener("message", ({ detail }) => this.#obey(detail));
    socket.addEventListener("audio", ({ detail }) => this.#take(detail));
    socket.addEventListener("down", ({ detail }) => this.#lose(detail));
    socket.addEventListener("stop", ({ detail }) => this.#end(detail));
    return socket;
  }

  /**
   * Whether another attempt after a close would only offer the expired token again.
   *
   * @param {import("./types.js").PlayerCode | null} code
   */
  #isTokenAwaited(code) {
    return code === TOKEN_EXPIRED && this.#request.token === this.#offeredToken;
  }

  #reconnect() {
    this.#choice.disconnect();
    this.#socket.close();
    this.#link = "connecting";
    this.#trouble = NO_TROUBLE;
    this.#socket = this.#makeSocket();
    this.#socket.open();
    this.#update();
  }

  /** @param {import("./messages.js").Hello} hello */
  #greet(hello) {
    if (hello.format && !this.#knows(hello.format.codec)) {
      return;
    }
    if (hello.packet_ms === undefined) {
      this.#askedDelivery = null;
    }
    this.#link = "up";
    this.#trouble = NO_TROUBLE;
    if (hello.channel !== this.#greeted.channel) {
      this.#greeted = { channel: hello.channel, hadSource: false };
    }
    this.#conductor.hello(hello, this.#world.now());
    this.#reconnects += this.#choice.isSwitching ? 0 : 1;
    if (this.#choice.grant(hello.channel)) {
      this.#tell({ type: "channel", channel: hello.channel });
    }
    this.#noteSilence(hello.silence);
    if (Array.isArray(hello.channels)) {
      this.#tell({ type: "channels", channels: hello.channels, sessionName: hello.session_name });
    }
    this.#update();
  }

  /** @param {import("./messages.js").ControlMessage} message */
  #obey(message) {
    switch (message.type) {
      case "error":
        this.#complain(message);
        break;
      case "channels":
        this.#tell({ type: "channels", channels: message.channels, sessionName: message.session_name });
        break;
      case "format":
        if (!this.#knows(message.format?.codec)) {
          return;
        }
        this.#conductor.message(message, this.#world.now());
        break;
      case "state":
        this.#noteSilence(message.silence);
        this.#conductor.message(message, this.#world.now());
        break;
      default:
        this.#conductor.message(message, this.#world.now());
    }
    this.#update();
  }

  /**
   * Whether the player knows a codec. If not, the session fails.
   *
   * @param {string | undefined} codec
   */
  #knows(codec) {
    if (codec === PCM || codec === OPUS) {
      return true;
    }
    this.#fail("codec", `This player does not know the codec ${codec}. Reload the page.`);
    return false;
  }

  /** @param {unknown} said */
  #noteSilence(said) {
    const silence = SILENCES.find((known) => known === said) ?? null;
    if (silence !== this.#silence) {
      this.#silence = silence;
      this.#tell({ type: "silence", silence });
    }
  }

  /**
   * Handles an error. A failed switch changes nothing, and is not reported if another choice has followed. Any other
   * error precedes a close with the same code.
   *
   * @param {import("./messages.js").Complaint} complaint
   */
  #complain({ code, message }) {
    if (code === BAD_REQUEST && this.#choice.isSwitching) {
      const { channel } = this.#greeted;
      if (!this.#choice.refuse(channel)) {
        return;
      }
      this.#tell({ type: "channel", channel });
    }
    this.#tell({ type: "notice", code, message });
  }

  /** @param {ArrayBuffer} message */
  #take(message) {
    const nowMs = this.#world.now();
    this.#bitRate.add(message.byteLength, nowMs);
    try {
      this.#conductor.frame(message, nowMs);
    } catch (error) {
      if (!(error instanceof RangeError)) {
        throw error;
      }
      this.#fail("protocol", "This player cannot read the relay's audio. Reload the page.");
      return;
    }
    if (nowMs - this.#askedMs >= ASK_AT_MOST_EVERY_MS) {
      this.#ask(nowMs);
    }
  }

  /** @param {import("./relay-socket.js").Ending & {retryInMs: number}} ending */
  #lose({ code, sentence, retryInMs }) {
    if (this.#conductor.channelState === "ended") {
      // The connection was lost before the relay closed it. There is nothing to come back to.
      this.#socket.close();
      this.#end({ code: SESSION_ENDED, sentence: closeSentence(SESSION_ENDED, "") });
      return;
    }
    // A listener that never got a `hello` has no connection to lose.
    this.#link = this.#reconnects < 0 ? "connecting" : "down";
    this.#trouble = { reason: sentence, code, retryInMs };
    this.#choice.disconnect();
    if (code === TOKEN_EXPIRED) {
      this.#tell({ type: "notice", code, message: sentence || "The token has expired; set a new one." });
    }
    this.#update();
  }

  /** @param {import("./relay-socket.js").Ending} ending */
  #end({ code, sentence }) {
    if (code !== SESSION_ENDED) {
      if (this.#link !== "up" && this.#choice.isElsewhere) {
        // The relay refused a channel that is no longer the chosen one.
        this.#reconnect();
      } else {
        this.#fail(code, sentence);
      }
      return;
    }
    this.#choice.disconnect();
    this.#farewell = { sentence, heldMs: this.#conductor.heldMs, sinceMs: this.#world.now() };
    this.#conductor.end();
    this.#update();
  }

  /**
   * @param {import("./types.js").PlayerCode} code
   * @param {string} sentence
   */
  #fail(code, sentence) {
    this.#finish("failed", code, sentence);
  }

  /**
   * @param {"failed" | "ended"} state
   * @param {import("./types.js").PlayerCode} code
   * @param {string} reason
   */
  #finish(state, code, reason) {
    this.stop();
    this.#tell({ type: "status", state, reason, code, retryInMs: null });
  }

  #tick() {
    this.#timer = this.#world.setTimer(() => this.#tick(), TICK_MS);
    const nowMs = this.#world.now();
    this.#ask(nowMs);
    this.#ticks += 1;
    if (this.#ticks % TICKS_PER_STATS === 0) {
      this.#tell({ type: "stats", stats: this.#stats(nowMs) });
    }
    this.#delivery.follow(this.#conductor.networkMs, nowMs);
    this.#askForDelivery();
    this.#switch();
    if (nowMs - this.#reportedMs >= REPORT_INTERVAL_MS) {
      this.#reportedMs = nowMs;
      this.#reportToRelay(nowMs);
    }
    this.#update();
  }

  /** @param {number} nowMs */
  #ask(nowMs) {
    this.#askedMs = nowMs;
    this.#conductor.ask();
  }

  /** @param {number} nowMs */
  #stats(nowMs) {
    const stats = this.#conductor.stats(nowMs);
    return {
      ...stats,
      delayMs: stats.delayMs === null ? null : stats.delayMs + this.#speakerMs,
      reconnects: Math.max(0, this.#reconnects),
      bitsPerSecond: this.#bitRate.at(nowMs),
    };
  }

  /** @param {number} nowMs */
  #reportToRelay(nowMs) {
    if (!this.#socket.accepted || !this.#conductor.hasPlayed) {
      return;
    }
    const { bufferMs, playoutMs, underruns, jumps } = this.#conductor.stats(nowMs);
    this.#socket.send({
      type: "stats",
      buffer_ms: Math.round(bufferMs),
      underruns,
      playout_ms: Math.max(0, Math.round(playoutMs)),
      jumps,
    });
  }

  #update() {
    if (this.#isOver) {
      return;
    }
    const conductor = this.#conductor;
    if (this.#farewell !== null) {
      const { sentence, heldMs, sinceMs } = this.#farewell;
      const nowMs = this.#world.now();
      if (conductor.isDrained || nowMs - sinceMs > STANDSTILL_MS) {
        this.#finish("ended", SESSION_ENDED, sentence);
      } else if (conductor.heldMs !== heldMs) {
        this.#farewell = { sentence, heldMs: conductor.heldMs, sinceMs: nowMs };
      }
      return;
    }
    const state = statusOf({
      link: this.#link,
      mode: conductor.mode,
      channelState: conductor.channelState,
      hasPlayed: conductor.hasPlayed,
      isPausing: conductor.isPausing,
    });
    if (state === "waiting" && conductor.channelState === "ended") {
      // The relay is about to close the connection, with the reason.
      return;
    }
    this.#greeted.hadSource ||= ["live", SOURCE_LOST].includes(conductor.channelState);
    const absence = state === "waiting" && this.#greeted.hadSource ? NO_SOURCE : NO_TROUBLE;
    const trouble = TRYING.has(state) ? this.#trouble : absence;
    if (state !== this.#told.state || trouble !== this.#told.trouble) {
      this.#told = { state, trouble };
      this.#tell({ type: "status", state, ...trouble });
    }
  }
}
