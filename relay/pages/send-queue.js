/**
 * What waits to leave the browser, when the way to the relay is slower than the sound.
 *
 * What a WebSocket was given can not be taken back, so it gets little at a time and the rest waits here. Bound:
 * `LIMIT_SECONDS`; beyond it the oldest is dropped, and `droppedSeconds` counts that.
 */

/** From here on a person should be told. */
export const WARNING_SECONDS = 0.5;

const LIMIT_SECONDS = 1.5;
const IN_SOCKET_SECONDS = 0.25;

export class SendQueue {
  #socket;
  #bytesPerSecond;
  #frames = [];
  #bytes = 0;
  #droppedBytes = 0;

  /**
   * @param {{bufferedAmount: number, send: (data: ArrayBufferView) => void}} socket
   * @param {number} bytesPerSecond of the audio.
   */
  constructor(socket, bytesPerSecond) {
    this.#socket = socket;
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** How late the audio that is pushed now will leave. */
  get waitingSeconds() {
    return (this.#bytes + this.#socket.bufferedAmount) / this.#bytesPerSecond;
  }

  get droppedSeconds() {
    return this.#droppedBytes / this.#bytesPerSecond;
  }

  /** Sends a frame, now or after those before it. */
  push(frame) {
    this.#frames.push(frame);
    this.#bytes += frame.byteLength;
    while (this.#frames.length > 0 && this.#socket.bufferedAmount < IN_SOCKET_SECONDS * this.#bytesPerSecond) {
      this.#socket.send(this.#take());
    }
    while (this.#frames.length > 0 && this.waitingSeconds > LIMIT_SECONDS) {
      this.#droppedBytes += this.#take().byteLength;
    }
  }

  /** Drops everything that waits, and `frame` with it, because there is no connection. */
  drop(frame) {
    this.#droppedBytes += this.#bytes + frame.byteLength;
    this.#frames = [];
    this.#bytes = 0;
  }

  /** Gives the socket all that waits. */
  flush() {
    while (this.#frames.length > 0) {
      this.#socket.send(this.#take());
    }
  }

  #take() {
    const frame = this.#frames.shift();
    this.#bytes -= frame.byteLength;
    return frame;
  }
}
