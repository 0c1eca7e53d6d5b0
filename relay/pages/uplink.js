/**
 * The way of a broadcaster's frames to the relay: one connection that comes back, and a bounded queue before it.
 *
 * Runs in a Worker, where neither a busy page nor a hidden tab delays audio; needs no DOM.
 */

import { RelaySocket } from "./player/relay-socket.js";
import { SendQueue } from "./send-queue.js";

const REPORT_INTERVAL_MS = 250;

/** How often a `RelaySocket` asks the relay for an answer; one that is due this long is late. */
const PING_INTERVAL_MS = 2000;

/** How long the relay may take to say good-bye. */
const FAREWELL_MS = 3000;

const SESSION_ENDED = 1000;

/**
 * @typedef {object} Target
 * @property {string} address Of the broadcaster's WebSocket, with its query.
 * @property {string[]} protocols Subprotocols offered beside `relay.v1`: a token.
 * @property {number} bytesPerSecond Of the audio.
 *
 * @typedef {"connecting" | "live" | "reconnecting"} Running
 *
 * @typedef {{type: "state", state: Running, code: Code | null, told: string}
 *   | {type: "state", state: "stopped", code: Code, told: string}} StateNews `code` is what stopped it or ended the latest
 *   attempt, `told` why, in a sentence.
 *
 * @typedef {import("./player/relay-socket.js").Ending["code"] | "not-ended"} Code "not-ended" when the relay may not know
 *   that the session is over.
 *
 * @typedef {object} Way What the way to the relay is like; about four times a second while frames come.
 * @property {"way"} type
 * @property {number} waitingSeconds
 * @property {number} droppedSeconds
 * @property {number | null} roundTripMs
 *
 * @typedef {{type: "relay", message: import("./player/messages.js").ControlMessage}} RelayNews What the relay says to the
 *   page.
 *
 * @typedef {StateNews | Way | RelayNews} News
 */

/** Control messages of the relay for the page. */
const FOR_THE_PAGE = new Set(["stats", "backpressure", "error"]);

export class Uplink {
  #socket;
  #queue;
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
   * @param {(news: News) => void} report
   */
  constructor({ address, protocols, bytesPerSecond }, report) {
    this.#report = report;
    this.#queue = new SendQueue(bytesPerSecond);
    // The relay may still take a connection that broke for alive; the next one comes in its place.
    const addressNow = () => (this.#accepted ? withTakeOver(address) : address);
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
    this.#socket.addEventListener("stop", ({ detail }) => this.#stop(detail.code, detail.sentence));
    this.#enter("connecting");
    this.#socket.open();
  }

  /**
   * Takes a frame of audio; it is sent, or waits, unless there never was a connection or it is leaving.
   *
   * @param {Int16Array<ArrayBuffer>} frame
   */
  push(frame) {
    if (this.#farewell !== null || this.#state === "stopped") {
      return;
    }
    const now = performance.now();
    if (this.#accepted) {
      this.#queue.push(frame, now);
    }
    if (this.#queue.isStuck(now)) {
      this.#socket.reset("The connection takes no more.");
    }
    if (now - this.#reportedAt >= REPORT_INTERVAL_MS) {
      this.#reportedAt = now;
      const { waitingSeconds, droppedSeconds } = this.#queue;
      const overdueMs = now - this.#pongAt - PING_INTERVAL_MS;
      const roundTripMs = this.#roundTripMs === null ? null : Math.max(this.#roundTripMs, overdueMs);
      this.#report({ type: "way", waitingSeconds, droppedSeconds, roundTripMs });
    }
  }

  /**
   * Has the relay told that the sound is silent on purpose, or no longer is; on later connections too.
   *
   * @param {boolean} on
   */
  mute(on) {
    this.#muted = on;
    if (this.#socket.accepted) {
      this.#socket.send({ type: "mute", on });
    }
  }

  /** Sends what waits, then pauses; reports `stopped` when the relay said good-bye, or after a while. */
  pause() {
    if (this.#state === "live") {
      this.#farewell = "pause";
      this.#sayFarewell("pause");
    } else {
      this.#stop(SESSION_ENDED, "");
    }
  }

  /** Likewise, and ends the session; without a connection it makes one for that. */
  end() {
    this.#farewell = "end";
    if (this.#state === "live") {
      this.#sayFarewell("end");
    }
  }

  /** Closes the connection without ending the session; reports nothing any more. */
  close() {
    this.#report = () => {};
    this.#stop(SESSION_ENDED, "");
  }

  /** @param {"pause" | "end"} farewell */
  #sayFarewell(farewell) {
    this.#queue.flush();
    this.#socket.send({ type: farewell });
    setTimeout(() => this.#stop(SESSION_ENDED, ""), FAREWELL_MS);
  }

  /**
   * @param {Code} code
   * @param {string} told
   */
  #stop(code, told) {
    if (this.#state !== "stopped") {
      this.#socket.close();
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
