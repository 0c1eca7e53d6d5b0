/**
 * Sends a broadcaster's frames to the relay: through a bounded queue and a connection that reconnects.
 *
 * It runs in a Worker, where neither a busy page nor a hidden tab delays audio, and needs no DOM.
 */

import { FRAME_SECONDS } from "./capture.js";
import { OpusCoder, PCM_RATE, PcmCoder } from "./coding.js";
import { BAD_REQUEST } from "./player/close-codes.js";
import { RelaySocket } from "./player/relay-socket.js";
import { SendQueue } from "./send-queue.js";

const REPORT_INTERVAL_MS = 250;

/** How often a `RelaySocket` pings the relay. When more time has passed since the last pong, the next one is late. */
const PING_INTERVAL_MS = 2000;

/** How long the encoder may take for its last packets before a farewell. An encoder that takes longer has hung. */
const FLUSH_MS = 1000;

/** How long the relay may take to close the connection after a farewell. On a slow network, queued sound comes first. */
const FAREWELL_MS = 6000;

const SESSION_ENDED = 1000;

/** The bitrate on the page is that of the latest packets, a second of them. */
const MEASURED_PACKETS = 50;

/**
 * @typedef {object} Target
 * @property {string} address Address of the broadcaster's WebSocket, including the query except for the format.
 * @property {string[]} protocols Subprotocols to offer beside `relay.v1`: a token.
 *
 * @typedef {"connecting" | "live" | "reconnecting"} Running
 *
 * @typedef {{type: "state", state: Running, code: Code | null, told: string}
 *   | {type: "state", state: "stopped", code: Code, told: string}} StateNews `code` is the cause of the stop or of
 *   the latest failure; `told` explains it in a sentence.
 *
 * @typedef {import("./player/relay-socket.js").Ending["code"] | "not-ended"} Code "not-ended": the relay may not know
 *   that the session is over.
 *
 * @typedef {object} Way State of the path to the relay, about four times a second while frames come.
 * @property {"way"} type
 * @property {number} waitingSeconds
 * @property {number} droppedSeconds
 * @property {number | null} roundTripMs
 * @property {number} bitsPerSecond Bit rate of the encoded audio.
 *
 * @typedef {{type: "rate", rate: number}} RateNews The sample rate of the frames that it takes. It comes first, and again
 *   when the codec changes.
 *
 * @typedef {{type: "relay", message: import("./player/messages.js").ControlMessage}} RelayNews A message
 *   from the relay to the page.
 *
 * @typedef {StateNews | Way | RateNews | RelayNews} News
 */

/** Types of control messages that the page handles. */
const FOR_THE_PAGE = new Set(["stats", "backpressure", "error"]);

export class Uplink {
  #socket;
  /** @type {import("./coding.js").Coder} */
  #coder;
  #queue;
  /**
   * The latest packets.
   *
   * @type {import("./coding.js").Packet[]}
   */
  #measured = [];
  #report;
  /** @type {Running | "stopped"} */
  #state = "connecting";
  #accepted = false;
  #muted = false;
  /** @type {"pause" | "end" | null} */
  #farewell = null;
  #reportedAt = -Infinity;
  #pongAt = 0;
  /** @type {number | null} */
  #roundTripMs = null;

  /**
   * @param {Target} target
   * @param {{hasOpus: boolean}} browser
   * @param {(news: News) => void} report
   */
  constructor({ address, protocols }, { hasOpus }, report) {
    this.#report = report;
    const emit = this.#send.bind(this);
    this.#coder = hasOpus ? new OpusCoder(emit, (error) => this.#goOnWithPcm(error.message)) : new PcmCoder(emit);
    this.#queue = new SendQueue(this.#coder.clockRate);
    // The relay may not have noticed yet that the last connection broke, so the next one takes its place.
    const addressNow = () => withFormat(this.#accepted ? withTakeOver(address) : address, this.#coder.codec);
    this.#socket = new RelaySocket(addressNow, { protocols });
    this.#socket.addEventListener("hello", () => {
      this.#accepted = true;
      this.#pongAt = performance.now();
      if (this.#muted) {
        this.mute(true);
      }
      this.#queue.connect(this.#socket, performance.now());
      this.#enter("live");
      if (this.#farewell !== null) {
        this.#sayFarewell(this.#farewell);
      }
    });
    this.#socket.addEventListener("message", ({ detail }) => {
      if (detail.type === "pong") {
        this.#pongAt = performance.now();
        this.#roundTripMs = this.#pongAt - detail.sent_ms;
      } else if (FOR_THE_PAGE.has(detail.type)) {
        this.#report({ type: "relay", message: detail });
      }
    });
    this.#socket.addEventListener("down", ({ detail }) => {
      this.#queue.disconnect();
      this.#roundTripMs = null;
      if (this.#farewell === "end") {
        this.#stop("not-ended", detail.sentence);
      } else if (this.#farewell !== null) {
        this.#stop(SESSION_ENDED, "");
      } else {
        this.#enter(this.#accepted ? "reconnecting" : "connecting", detail.code, detail.sentence);
      }
    });
    this.#socket.addEventListener("stop", ({ detail }) => {
      if (detail.code === BAD_REQUEST && this.#coder.codec === "opus") {
        // Perhaps this relay takes no Opus. If something else is wrong, it refuses PCM as well.
        this.#usePcm();
        this.#socket.open();
      } else {
        this.#stop(detail.code, detail.sentence);
      }
    });
    this.#report({ type: "rate", rate: this.#coder.clockRate });
    this.#enter("connecting");
    this.#socket.open();
  }

  /**
   * Sends a frame of audio, or queues it. Drops it before the first connection and after `pause` or `end`.
   *
   * @param {Int16Array<ArrayBuffer>} frame
   */
  push(frame) {
    if (this.#farewell !== null || this.#state === "stopped") {
      return;
    }
    const now = performance.now();
    // A frame may still have the rate from before a change of the codec.
    if (this.#accepted && frame.length === this.#coder.clockRate * FRAME_SECONDS) {
      this.#coder.encode(frame);
    }
    if (this.#queue.isStuck(now)) {
      this.#socket.reset("The connection takes no more.");
    }
    if (now - this.#reportedAt >= REPORT_INTERVAL_MS) {
      this.#reportedAt = now;
      const { waitingSeconds, droppedSeconds } = this.#queue;
      const overdueMs = now - this.#pongAt - PING_INTERVAL_MS;
      const roundTripMs = this.#roundTripMs === null ? null : Math.max(this.#roundTripMs, overdueMs);
      const bitsPerSecond = this.#bitsPerSecond;
      this.#report({ type: "way", waitingSeconds, droppedSeconds, roundTripMs, bitsPerSecond });
    }
  }

  /**
   * Informs the relay, on later connections too, whether the broadcaster is muted.
   *
   * @param {boolean} on
   */
  mute(on) {
    this.#muted = on;
    if (this.#socket.accepted) {
      this.#socket.send({ type: "mute", on });
    }
  }

  /** Sends the queued frames, then pauses. Reports `stopped` once the connection closes, or after a timeout. */
  pause() {
    if (this.#state === "live") {
      this.#farewell = "pause";
      this.#sayFarewell("pause");
    } else {
      this.#stop(SESSION_ENDED, "");
    }
  }

  /**
   * Sends the queued frames, then ends the session. If there is no connection, waits for the next attempt to connect.
   * Reports `stopped` with the code "not-ended" if the relay does not confirm the end.
   */
  end() {
    this.#farewell = "end";
    if (this.#state === "live") {
      this.#sayFarewell("end");
    }
  }

  /** Closes the connection without ending the session, and reports no more news. */
  close() {
    this.#report = () => {};
    this.#stop(SESSION_ENDED, "");
  }

  /** @param {"pause" | "end"} farewell */
  async #sayFarewell(farewell) {
    await Promise.race([this.#coder.flush(), new Promise((resolve) => setTimeout(resolve, FLUSH_MS))]);
    // A late packet must not follow the farewell.
    this.#coder.close();
    if (this.#socket.accepted) {
      this.#queue.flush();
      this.#socket.send({ type: farewell });
      setTimeout(() => this.#stop(farewell === "end" ? "not-ended" : SESSION_ENDED, ""), FAREWELL_MS);
    }
  }

  /** @param {import("./coding.js").Packet} packet */
  #send(packet) {
    this.#measured = [...this.#measured, packet].slice(-MEASURED_PACKETS);
    this.#queue.push(packet, performance.now());
  }

  get #bitsPerSecond() {
    const bytes = this.#measured.reduce((sum, { data }) => sum + data.byteLength, 0);
    const ticks = this.#measured.reduce((sum, packet) => sum + packet.ticks, 0);
    return ticks === 0 ? 0 : (8 * bytes * this.#coder.clockRate) / ticks;
  }

  /**
   * Continues with PCM on a new connection, because the encoder failed. After `pause` or `end`, there is nothing more to
   * encode, and what waits goes out as Opus.
   *
   * @param {string} sentence The reason.
   */
  #goOnWithPcm(sentence) {
    if (this.#farewell !== null) {
      return;
    }
    this.#usePcm();
    if (!this.#socket.isWaiting) {
      this.#socket.reset(sentence);
    }
  }

  #usePcm() {
    this.#coder.close();
    this.#coder = new PcmCoder(this.#send.bind(this));
    this.#queue.restart(this.#coder.clockRate);
    this.#measured = [];
    this.#report({ type: "rate", rate: this.#coder.clockRate });
  }

  /**
   * @param {Code} code
   * @param {string} told
   */
  #stop(code, told) {
    if (this.#state !== "stopped") {
      this.#socket.close();
      this.#coder.close();
      this.#state = "stopped";
      this.#report({ type: "state", state: "stopped", code, told });
    }
  }

  /**
   * @param {Running} state
   * @param {Code | null} [code]
   * @param {string} [told]
   */
  #enter(state, code = null, told = "") {
    this.#state = state;
    this.#report({ type: "state", state, code, told });
  }
}

/**
 * Returns the address at which a broadcaster replaces the present one of its channel.
 *
 * @param {string} address
 */
export function withTakeOver(address) {
  const url = new URL(address);
  url.searchParams.set("takeover", "1");
  return url.href;
}

/**
 * Adds a codec to a broadcaster's address. The relay sends PCM to listeners at `PCM_RATE`, whatever the codec.
 *
 * @param {string} address
 * @param {string} codec
 */
function withFormat(address, codec) {
  const url = new URL(address);
  url.searchParams.set("codec", codec);
  url.searchParams.set("rate", String(PCM_RATE));
  url.searchParams.set("channels", "1");
  return url.href;
}
