/**
 * One run of the player, from `play` to `stop`: a connection to the relay and the conductor behind it.
 *
 * It lives in the Worker, and is told about the audio thread and the page by messages, so that a page whose timers a
 * browser throttles hears all the same. It tells the page:
 *   {type: "status", state, reason, code, retryInMs}
 *   {type: "stats", stats}            four times a second
 *   {type: "channel", channel}        which one is played, when that changed
 *   {type: "channels", channels, sessionName}
 *   {type: "silence", silence}        why there is nothing to hear, when that changed: "muted", "paused" or null
 *   {type: "notice", code, message}   something a person may want to know
 */

import { BAD_REQUEST, SESSION_ENDED, TOKEN_EXPIRED } from "./close-codes.js";
import { Conductor } from "./conductor.js";
import { RelaySocket, WORLD } from "./relay-socket.js";
import { SOURCE_LOST, statusOf } from "./status.js";
import { TOKEN_PREFIX, addressAt } from "./wire.js";

const TICK_MS = 50;
const TICKS_PER_STATS = 5;

/** Frames of 5 ms must not ask the audio thread each time. */
const ASK_AT_MOST_EVERY_MS = 20;

/** Small, and often enough to see where a channel's listeners have trouble. */
const REPORT_INTERVAL_MS = 5000;

/** A relay that does not know how to switch ignores the message; then a new connection does. */
const SWITCH_TIMEOUT_MS = 3000;

/** What the last of the sound may take after the session ended, or the audio thread stands still. */
const FAREWELL_MS = 5000;

/** What a page may take to get a new token. */
const TOKEN_PATIENCE_MS = 10_000;

const CODEC = "pcm_s16le";

/** Why it does not go on as it should. */
const NO_TROUBLE = Object.freeze({ reason: "", code: null, retryInMs: null });

/** Why there is nothing to hear, as a broadcaster may say. */
const SILENCES = ["muted", "paused"];

/** Of a broadcaster that was there. */
const NO_SOURCE = Object.freeze({
  ...NO_TROUBLE,
  reason: "The broadcaster has paused or is cut off.",
  code: SOURCE_LOST,
});

/** In these states there is no connection, and perhaps trouble. */
const TRYING = new Set(["connecting", "reconnecting"]);

export class Session {
  #request;
  #tell;
  #world;
  #conductor;
  #socket = null;
  #port = null;
  #isRendering = false;
  #link = "connecting";
  #trouble = NO_TROUBLE;
  #told = { state: null, trouble: NO_TROUBLE };
  #silence = null;
  #offeredToken = null;
  /** The channel that greeted last, and whether anybody has been heard to broadcast to it. */
  #greeted = { channel: null, hadSource: false };
  #reconnects = -1;
  #speakerMs = 0;
  /** {previous, unanswered, timer}: the channel before, how many answers are to come, the last one's timeout. */
  #switching = null;
  #farewell = null;
  #timer;
  #ticks = 0;
  #askedMs = -Infinity;
  #reportedMs;
  #isOver = false;

  /**
   * @param {object} options
   * @param {{url: string, session: string, channel: string, token: string | null, latency: string}} options.request
   * @param {(message: object) => void} options.tell The page.
   * @param {typeof WORLD} [options.world]
   */
  constructor({ request, tell, world = WORLD }) {
    this.#request = { ...request };
    this.#tell = tell;
    this.#world = world;
    this.#reportedMs = world.now();
    this.#conductor = new Conductor({
      latency: request.latency,
      send: (order, transfer = []) => this.#port?.postMessage(order, transfer),
    });
  }

  start() {
    this.#tick();
    this.#connect();
  }

  stop() {
    this.#isOver = true;
    this.#world.clearTimer(this.#timer);
    this.#endSwitching();
    this.#socket.close();
    this.setPort(null);
  }

  /** Takes the way to the audio thread; null when there is none any more. */
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

  /** Whether the audio thread renders: a context that is suspended or interrupted does not. */
  setRunning(isRunning) {
    const isRendering = isRunning && this.#port !== null;
    if (isRendering !== this.#isRendering) {
      this.#isRendering = isRendering;
      this.#conductor.setRendering(isRendering);
      this.#update();
    }
  }

  /** How late sound leaves the speaker after it was rendered. */
  setSpeakerLatency(ms) {
    this.#speakerMs = ms;
  }

  setLatency(preset) {
    this.#conductor.setLatency(preset);
  }

  /** For the next connection, which comes at once where it waits for it. */
  setToken(token) {
    this.#request.token = token;
    if (this.#trouble.code === TOKEN_EXPIRED) {
      this.#socket.retryNow();
    }
  }

  switchChannel(channel) {
    const previous = this.#request.channel;
    if (channel === previous || this.#isOver || this.#farewell !== null) {
      return;
    }
    this.#request.channel = channel;
    if (this.#socket.accepted) {
      this.#switching ??= { previous, unanswered: 0, timer: null };
      this.#switching.unanswered += 1;
      this.#world.clearTimer(this.#switching.timer);
      this.#switching.timer = this.#world.setTimer(() => this.#reconnect(), SWITCH_TIMEOUT_MS);
      this.#socket.send({ type: "switch", channel });
    } else if (!(this.#socket.isWaiting && this.#isTokenAwaited(this.#trouble.code))) {
      this.#reconnect();
    }
  }

  #connect() {
    const { url, session } = this.#request;
    const socket = new RelaySocket(
      () => {
        const { channel } = this.#request;
        const query = { codec: CODEC, ...this.#conductor.connectQuery(channel, this.#world.now()) };
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
    this.#socket = socket;
    socket.open();
  }

  /** Whether another attempt behind a close would only offer again the token that has just expired. */
  #isTokenAwaited(code) {
    return code === TOKEN_EXPIRED && this.#request.token === this.#offeredToken;
  }

  #reconnect() {
    this.#endSwitching();
    this.#socket.close();
    this.#link = "connecting";
    this.#trouble = NO_TROUBLE;
    this.#connect();
    this.#update();
  }

  #greet(hello) {
    if (hello.format && hello.format.codec !== CODEC) {
      this.#fail("codec", `This player does not know the codec ${hello.format.codec}. Reload the page.`);
      return;
    }
    this.#link = "up";
    this.#trouble = NO_TROUBLE;
    if (hello.channel !== this.#greeted.channel) {
      this.#greeted = { channel: hello.channel, hadSource: false };
    }
    this.#conductor.hello(hello, this.#world.now());
    this.#reconnects += this.#switching === null ? 1 : 0;
    if (this.#isSuperseded()) {
      this.#switching.previous = hello.channel;
      return;
    }
    this.#endSwitching();
    this.#request.channel = hello.channel;
    this.#tell({ type: "channel", channel: hello.channel });
    this.#noteSilence(hello.silence);
    if (Array.isArray(hello.channels)) {
      this.#tell({ type: "channels", channels: hello.channels, sessionName: hello.session_name });
    }
    this.#update();
  }

  #obey(message) {
    switch (message.type) {
      case "error":
        this.#complain(message);
        break;
      case "channels":
        this.#tell({ type: "channels", channels: message.channels, sessionName: message.session_name });
        break;
      case "format":
        if (message.format?.codec !== CODEC) {
          this.#fail("codec", `This player does not know the codec ${message.format?.codec}. Reload the page.`);
          return;
        }
        this.#conductor.message(message, this.#world.now());
        break;
      case "state":
        this.#noteSilence(message.silence);
      // falls through
      default:
        this.#conductor.message(message, this.#world.now());
    }
    this.#update();
  }

  #noteSilence(said) {
    const silence = SILENCES.includes(said) ? said : null;
    if (silence !== this.#silence) {
      this.#silence = silence;
      this.#tell({ type: "silence", silence });
    }
  }

  /** A switch that failed changes nothing; any other error goes before a close, which says the same again. */
  #complain({ code, message }) {
    if (code === BAD_REQUEST && this.#switching !== null) {
      if (this.#isSuperseded()) {
        return;
      }
      this.#request.channel = this.#switching.previous;
      this.#endSwitching();
      this.#tell({ type: "channel", channel: this.#request.channel });
    }
    this.#tell({ type: "notice", code, message });
  }

  /** Counts an answer to a switch; tells whether it does not matter, because another switch followed. */
  #isSuperseded() {
    if (this.#switching === null) {
      return false;
    }
    this.#switching.unanswered -= 1;
    return this.#switching.unanswered > 0;
  }

  #endSwitching() {
    this.#world.clearTimer(this.#switching?.timer);
    this.#switching = null;
  }

  #take(message) {
    const nowMs = this.#world.now();
    try {
      this.#conductor.frame(message, nowMs);
    } catch (error) {
      if (!(error instanceof RangeError)) {
        throw error;
      }
      this.#fail("protocol", "This player does not understand the relay's audio. Reload the page.");
      return;
    }
    if (nowMs - this.#askedMs >= ASK_AT_MOST_EVERY_MS) {
      this.#ask(nowMs);
    }
  }

  #lose({ code, sentence, retryInMs }) {
    // A listener that was never greeted has no connection to lose.
    this.#link = this.#reconnects < 0 ? "connecting" : "down";
    this.#trouble = { reason: sentence, code, retryInMs };
    this.#endSwitching();
    if (code === TOKEN_EXPIRED) {
      this.#tell({ type: "notice", code, message: sentence || "The token has expired; set a new one." });
    }
    this.#update();
  }

  #end({ code, sentence }) {
    if (code !== SESSION_ENDED) {
      this.#fail(code, sentence);
      return;
    }
    this.#farewell = { sentence, untilMs: this.#world.now() + FAREWELL_MS };
    this.#conductor.end();
    this.#update();
  }

  #fail(code, sentence) {
    this.#finish("failed", code, sentence);
  }

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
    if (nowMs - this.#reportedMs >= REPORT_INTERVAL_MS) {
      this.#reportedMs = nowMs;
      this.#reportToRelay(nowMs);
    }
    this.#update();
  }

  #ask(nowMs) {
    this.#askedMs = nowMs;
    this.#conductor.ask();
  }

  #stats(nowMs) {
    const stats = this.#conductor.stats(nowMs);
    return {
      ...stats,
      delayMs: stats.delayMs === null ? null : stats.delayMs + this.#speakerMs,
      reconnects: Math.max(0, this.#reconnects),
    };
  }

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
      const { sentence, untilMs } = this.#farewell;
      if (conductor.isDrained || this.#world.now() > untilMs) {
        this.#finish("ended", SESSION_ENDED, sentence);
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
    this.#greeted.hadSource ||= ["live", SOURCE_LOST].includes(conductor.channelState);
    const absence = state === "waiting" && this.#greeted.hadSource ? NO_SOURCE : NO_TROUBLE;
    const trouble = TRYING.has(state) ? this.#trouble : absence;
    if (state !== this.#told.state || trouble !== this.#told.trouble) {
      this.#told = { state, trouble };
      this.#tell({ type: "status", state, ...trouble });
    }
  }
}
