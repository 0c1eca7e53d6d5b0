/**
 * A persistent WebSocket connection to the relay: detects a dead connection, and reconnects if the relay allows it.
 *
 * After `close`, it fires no events.
 */

import { goawayDelayMs, retryDelayMs } from "./backoff.js";
import { CONNECTION_BROKE, closeSentence, isFinal } from "./close-codes.js";
import { PROTOCOL, readMessage } from "./wire.js";

const PING_INTERVAL_MS = 2000;
const DEAD_AFTER_MS = 6000;

/** A connection that lasts this long counts as good and resets the backoff. */
const STABLE_AFTER_MS = 5000;

/** Code of `down` after this many failures, if the relay never answered. A restart causes only one or two. */
export const UNREACHABLE = "unreachable";
const UNREACHABLE_ATTEMPTS = 3;
// A page cannot find out why a connection failed.
const UNREACHABLE_SENTENCE =
  "The relay does not answer. It may be full or not running; this network or a proxy may block WebSockets; the relay " +
  "may not allow this page's origin (its setting access.allowed_origins); this page's Content-Security-Policy may not " +
  "allow the relay (connect-src). Trying again…";

/**
 * `code` is the close code, "address" if the browser refuses the address, or "unreachable" from the third attempt on
 * if the relay has never answered. `sentence` explains it.
 *
 * @typedef {{code: number | "address" | "unreachable", sentence: string}} Ending
 *
 * @typedef {object} SocketEventMap
 * @property {CustomEvent<import("./messages.js").Hello>} hello The connection is accepted.
 * @property {CustomEvent<import("./messages.js").ControlMessage>} message Any other control message.
 * @property {CustomEvent<ArrayBuffer>} audio
 * @property {CustomEvent<Ending & {retryInMs: number}>} down The connection broke or failed; another attempt follows.
 * @property {CustomEvent<Ending>} stop The connection ended for good.
 */

/** The browser functions that a socket needs. Tests replace them. */
export const WORLD = Object.freeze({
  now: () => performance.now(),
  random: () => Math.random(),
  /** @type {(address: string, protocols: string[]) => WebSocket} */
  connect: (address, protocols) => new WebSocket(address, protocols),
  /** @type {(callback: () => void, delayMs: number) => number} */
  setTimer: (callback, delayMs) => setTimeout(callback, delayMs),
  /** @type {(timer: number | null) => void} */
  clearTimer: (timer) => clearTimeout(timer ?? undefined),
});

const Emitter = /** @type {new () => import("./types.js").TypedEventTarget<SocketEventMap>} */ (EventTarget);

export class RelaySocket extends Emitter {
  #address;
  #protocols;
  #isFinal;
  #bufferedMs;
  #leastWaitMs;
  #world;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {number | null} */
  #acceptedAt = null;
  #wasHeard = false;
  /** @type {number | null} */
  #unansweredSince = null;
  /** @type {import("./messages.js").Complaint | null} */
  #complaint = null;
  /** @type {number | null} */
  #goawayMs = null;
  #attempt = 0;
  /** @type {number | null} */
  #retryTimer = null;
  /** @type {number | null} */
  #pingTimer = null;

  /**
   * @param {string | (() => string)} address `ws:` or `wss:`. A function is called for every attempt.
   * @param {object} [options]
   * @param {string[] | (() => string[])} [options.protocols] Subprotocols to offer beside `relay.v1`.
   * @param {(code: number) => boolean} [options.isFinal] Whether a close code forbids a reconnection.
   * @param {() => number} [options.bufferedMs] Audio left to play when the connection breaks; see `retryDelayMs`.
   * @param {(code: number) => number} [options.leastWaitMs] Minimum wait after a close; `retryNow` ends it.
   * @param {typeof WORLD} [options.world]
   */
  constructor(
    address,
    {
      protocols = [],
      isFinal: policy = isFinal,
      bufferedMs = () => Infinity,
      leastWaitMs = () => 0,
      world = WORLD,
    } = {},
  ) {
    super();
    this.#address = typeof address === "function" ? address : () => address;
    this.#protocols = typeof protocols === "function" ? protocols : () => protocols;
    this.#isFinal = policy;
    this.#bufferedMs = bufferedMs;
    this.#leastWaitMs = leastWaitMs;
    this.#world = world;
  }

  /** Whether the relay has accepted the present connection. */
  get accepted() {
    return this.#acceptedAt !== null;
  }

  /** Whether the connection is gone and the next attempt has not begun. */
  get isWaiting() {
    return this.#retryTimer !== null;
  }

  /** Bytes passed to `send` that have not left the browser. */
  get bufferedAmount() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** Connects. If the browser refuses the address, fires `stop` before it returns. */
  open() {
    this.#retryTimer = null;
    const socket = this.#connect();
    if (socket === null) {
      return;
    }
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#lose(code, reason);
    // If the page's policy forbids the address, Chromium fires no `close`. Otherwise `close` comes before this timer.
    socket.onerror = () => this.#world.setTimer(() => this.#socket === socket && this.#lose(CONNECTION_BROKE, ""), 0);
    this.#socket = socket;
    this.#complaint = null;
    this.#goawayMs = null;
    this.#unansweredSince = this.#world.now();
    this.#waitForPulse();
  }

  /**
   * Sends bytes, or an object as a control message. Call it only while `accepted`.
   *
   * @param {ArrayBufferView<ArrayBuffer> | import("./messages.js").Command} data
   */
  send(data) {
    this.#socket?.send(ArrayBuffer.isView(data) ? data : JSON.stringify(data));
  }

  close() {
    this.#world.clearTimer(this.#retryTimer);
    this.#retryTimer = null;
    this.#abandon()?.close(1000);
  }

  /** Starts the next attempt at once. Does nothing if none is scheduled. */
  retryNow() {
    if (this.isWaiting) {
      this.#world.clearTimer(this.#retryTimer);
      this.open();
    }
  }

  /**
   * Abandons the present connection and reconnects.
   *
   * @param {string} sentence The reason.
   */
  reset(sentence) {
    this.#abandon()?.close();
    this.#retry(CONNECTION_BROKE, sentence);
  }

  #connect() {
    const address = this.#address();
    const protocols = [PROTOCOL, ...this.#protocols()];
    try {
      return this.#world.connect(address, protocols);
    } catch (error) {
      // The address is invalid, or it is not wss: on a page over HTTPS.
      const why = error instanceof Error ? error.message : String(error);
      this.#fire("stop", { code: "address", sentence: `The browser refuses the relay's address: ${why}` });
      return null;
    }
  }

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    this.#unansweredSince = null;
    this.#wasHeard = true;
    if (data instanceof ArrayBuffer) {
      this.#fire("audio", data);
      return;
    }
    const message = readMessage(data);
    if (message?.type === "hello") {
      this.#acceptedAt ??= this.#world.now();
      this.#fire("hello", message);
      if (this.accepted) {
        // Ping at once, because the answer is needed to estimate the relay's clock.
        this.#ping();
      }
    } else if (message !== null) {
      this.#note(message);
      this.#fire("message", message);
    }
  }

  /** @param {import("./messages.js").ControlMessage} message */
  #note(message) {
    if (message.type === "error") {
      this.#complaint = message;
    } else if (message.type === "goaway") {
      this.#goawayMs = Number(message.reconnect_after_ms) || 0;
    }
  }

  /** Detects a dead connection by a ping of our own, because a page does not see the WebSocket protocol's pings. */
  #checkPulse() {
    const now = this.#world.now();
    if (this.#unansweredSince !== null && now - this.#unansweredSince >= DEAD_AFTER_MS) {
      this.reset("The relay was not heard any more.");
      return;
    }
    if (this.#acceptedAt !== null) {
      this.#attempt = now - this.#acceptedAt >= STABLE_AFTER_MS ? 0 : this.#attempt;
      this.#ping();
    }
    this.#waitForPulse();
  }

  #ping() {
    const now = this.#world.now();
    this.#unansweredSince ??= now;
    this.send({ type: "ping", sent_ms: now });
  }

  #waitForPulse() {
    this.#world.clearTimer(this.#pingTimer);
    this.#pingTimer = this.#world.setTimer(() => this.#checkPulse(), PING_INTERVAL_MS);
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #lose(code, reason) {
    // An earlier error with another code was about something else, such as a `switch`.
    const told = this.#complaint?.code === code ? String(this.#complaint.message ?? "") : reason;
    this.#abandon();
    this.#wasHeard ||= code !== CONNECTION_BROKE;
    if (this.#isFinal(code)) {
      this.#fire("stop", { code, sentence: closeSentence(code, told) });
    } else {
      this.#retry(code, told);
    }
  }

  /**
   * @param {number} code
   * @param {string} sentence
   */
  #retry(code, sentence) {
    const random = this.#world.random();
    const delayMs =
      this.#goawayMs === null
        ? retryDelayMs(this.#attempt, random, this.#bufferedMs())
        : goawayDelayMs(this.#goawayMs, random);
    const retryInMs = this.#leastWaitMs(code) + delayMs;
    this.#retryTimer = this.#world.setTimer(() => this.open(), retryInMs);
    this.#attempt += 1;
    const isUnreachable = !this.#wasHeard && this.#attempt >= UNREACHABLE_ATTEMPTS;
    /** @type {Ending} */
    const why = isUnreachable ? { code: UNREACHABLE, sentence: UNREACHABLE_SENTENCE } : { code, sentence };
    this.#fire("down", { ...why, retryInMs });
  }

  /** Detaches the present connection, so that its later events are ignored. */
  #abandon() {
    const socket = this.#socket;
    this.#world.clearTimer(this.#pingTimer);
    if (socket !== null) {
      socket.onmessage = null;
      socket.onclose = null;
      socket.onerror = null;
    }
    this.#socket = null;
    this.#acceptedAt = null;
    return socket;
  }

  /**
   * @template {keyof SocketEventMap} Type
   * @param {Type} type
   * @param {SocketEventMap[Type]["detail"]} detail
   */
  #fire(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
