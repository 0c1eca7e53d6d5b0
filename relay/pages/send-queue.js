/**
 * Frames that wait to leave the browser, when the way to the relay is slower than the sound, or gone for a while.
 *
 * What a WebSocket was given can not be taken back, so it gets little at a time and the rest waits here. Bound:
 * `LIMIT_SECONDS`, with what waits in the socket; beyond it the oldest is dropped, and `droppedSeconds` counts that.
 */

/** From here on a person should be told. */
export const WARNING_SECONDS = 0.5;

/** A socket that takes nothing for this long is as good as dead, even when nothing else says so. */
export const STUCK_MS = 5000;

const LIMIT_SECONDS = 1.5;
const IN_SOCKET_SECONDS = 0.25;

/**
 * @typedef {Uint8Array<ArrayBuffer> | Int16Array<ArrayBuffer>} Frame
 * @typedef {{bufferedAmount: number, send: (data: Frame) => void}} Socket
 */

export class SendQueue {
  #bytesPerSecond;
  /** @type {Socket | null} */
  #socket = null;
  /** @type {Frame[]} */
  #frames = [];
  #bytes = 0;
  #droppedBytes = 0;
  #seenInSocket = 0;
  #movedAt = 0;

  /** @param {number} bytesPerSecond of the audio. */
  constructor(bytesPerSecond) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** How late the audio that is pushed now will leave. */
  get waitingSeconds() {
    return (this.#bytes + this.#inSocket) / this.#bytesPerSecond;
  }

  get droppedSeconds() {
    return this.#droppedBytes / this.#bytesPerSecond;
  }

  /**
   * Sends what waits, and what comes, to a socket.
   *
   * @param {Socket} socket
   * @param {number} nowMs
   */
  connect(socket, nowMs) {
    this.#socket = socket;
    this.#movedAt = nowMs;
    this.#seenInSocket = 0;
    this.#send();
  }

  /** Keeps what comes until `connect`; counts as dropped what the old socket had not sent when it was last looked at. */
  disconnect() {
    this.#droppedBytes += this.#socket === null ? 0 : this.#seenInSocket;
    this.#socket = null;
  }

  /**
   * Sends a frame, now or after those before it.
   *
   * @param {Frame} frame
   * @param {number} nowMs
   */
  push(frame, nowMs) {
    this.#frames.push(frame);
    this.#bytes += frame.byteLength;
    this.#send();
    while (this.#frames.length > 0 && this.waitingSeconds > LIMIT_SECONDS) {
      this.#droppedBytes += this.#take().byteLength;
    }
    if (this.#inSocket < this.#seenInSocket || this.#frames.length === 0) {
      this.#movedAt = nowMs;
    }
    this.#seenInSocket = this.#inSocket;
  }

  /**
   * Tells whether frames wait and the socket has taken none for `STUCK_MS`.
   *
   * @param {number} nowMs
   */
  isStuck(nowMs) {
    return this.#socket !== null && this.#frames.length > 0 && nowMs - this.#movedAt >= STUCK_MS;
  }

  /** Gives the socket all that waits. */
  flush() {
    while (this.#frames.length > 0) {
      this.#socket?.send(this.#take());
    }
  }

  get #inSocket() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  #send() {
    while (this.#socket && this.#frames.length > 0 && this.#inSocket < IN_SOCKET_SECONDS * this.#bytesPerSecond) {
      this.#socket.send(this.#take());
    }
  }

  /** Takes the oldest of the frames that wait; there must be one. */
  #take() {
    const frame = /** @type {Frame} */ (this.#frames.shift());
    this.#bytes -= frame.byteLength;
    return frame;
  }
}
