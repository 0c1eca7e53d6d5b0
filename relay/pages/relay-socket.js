/**
 * One WebSocket to the relay that stays: it notices a dead connection, and connects again where the relay allows it.
 *
 * Events:
 *   hello    detail: the relay's `hello`; the connection is accepted.
 *   message  detail: any other control message.
 *   audio    detail: an ArrayBuffer.
 *   down     detail: {code}; the connection is gone and another attempt is under way.
 *   stop     detail: {code, sentence}; nothing more comes, and the sentence says why.
 *
 * A connection that the page itself closes with `close` fires nothing.
 */

import { PROTOCOL, closeSentence, isFinal, readMessage } from "./wire.js";

const PING_INTERVAL_MS = 2000;
const DEAD_AFTER_MS = 6000;
const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 10_000;

/** A connection that lasted this long was a good one; the next retry is a first one again. */
const STABLE_AFTER_MS = 5000;

const CONNECTION_BROKE = 1006;

/**
 * Gives how long to wait before an attempt to connect again: a random part of a bound that doubles (full jitter),
 * so that the listeners of a relay that restarts do not all come back at once.
 *
 * @param {number} attempt 0 for the first one after a good connection.
 * @param {number} random Between 0 and 1.
 */
export function retryDelayMs(attempt, random) {
  return random * Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** attempt);
}

export class RelaySocket extends EventTarget {
  #address;
  #protocols;
  #isFinal;
  #socket = null;
  #acceptedAt = null;
  #unansweredSince = null;
  #told = "";
  #attempt = 0;
  #retryTimer;
  #pingTimer;

  /**
   * @param {string} address `ws:` or `wss:`.
   * @param {object} [options]
   * @param {string[]} [options.protocols] Subprotocols offered beside `relay.v1`.
   * @param {(code: number) => boolean} [options.isFinal] Which close codes forbid to connect again.
   */
  constructor(address, { protocols = [], isFinal: policy = isFinal } = {}) {
    super();
    this.#address = address;
    this.#protocols = [PROTOCOL, ...protocols];
    this.#isFinal = policy;
  }

  /** Whether the relay has accepted the present connection. */
  get accepted() {
    return this.#acceptedAt !== null;
  }

  /** Bytes given to `send` that have not left the browser. */
  get bufferedAmount() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  open() {
    const socket = new WebSocket(this.#address, this.#protocols);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#lose(code, reason);
    this.#socket = socket;
    this.#told = "";
    this.#unansweredSince = performance.now();
    this.#pingTimer = setInterval(() => this.#checkPulse(), PING_INTERVAL_MS);
  }

  /** Sends bytes, or an object as a control message; only while `accepted`. */
  send(data) {
    this.#socket.send(ArrayBuffer.isView(data) || data instanceof ArrayBuffer ? data : JSON.stringify(data));
  }

  close() {
    clearTimeout(this.#retryTimer);
    this.#abandon()?.close(1000);
  }

  #receive(data) {
    this.#unansweredSince = null;
    if (data instanceof ArrayBuffer) {
      this.#fire("audio", data);
      return;
    }
    const message = readMessage(data);
    if (message?.type === "hello") {
      this.#acceptedAt = performance.now();
      this.#fire("hello", message);
    } else if (message !== null) {
      if (message.type === "error") {
        this.#told = String(message.message ?? "");
      }
      this.#fire("message", message);
    }
  }

  /** The browser answers the relay's pings behind our back, so only a ping of our own tells whether it is there. */
  #checkPulse() {
    const now = performance.now();
    if (this.#unansweredSince !== null && now - this.#unansweredSince >= DEAD_AFTER_MS) {
      this.#abandon().close();
      this.#retry(CONNECTION_BROKE);
      return;
    }
    if (this.accepted) {
      this.#attempt = now - this.#acceptedAt >= STABLE_AFTER_MS ? 0 : this.#attempt;
      this.#unansweredSince ??= now;
      this.send({ type: "ping", id: Math.round(now) });
    }
  }

  #lose(code, reason) {
    this.#abandon();
    if (this.#isFinal(code)) {
      this.#fire("stop", { code, sentence: closeSentence(code, this.#told || reason) });
    } else {
      this.#retry(code);
    }
  }

  #retry(code) {
    this.#retryTimer = setTimeout(() => this.open(), retryDelayMs(this.#attempt, Math.random()));
    this.#attempt += 1;
    this.#fire("down", { code });
  }

  /** Forgets the present connection, so that nothing it still does is noticed. */
  #abandon() {
    const socket = this.#socket;
    clearInterval(this.#pingTimer);
    if (socket !== null) {
      socket.onmessage = null;
      socket.onclose = null;
    }
    this.#socket = null;
    this.#acceptedAt = null;
    return socket;
  }

  #fire(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
