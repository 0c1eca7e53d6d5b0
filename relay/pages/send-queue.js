/**
 * Audio that waits to leave the browser, when the way to the relay is slower than the sound, or gone for a while.
 *
 * What a WebSocket was given can not be taken back, so it gets little at a time and the rest waits here. Bound:
 * `LIMIT_SECONDS`, with what waits in the socket; beyond it the oldest is dropped, and `droppedSeconds` counts that.
 * It counts time in ticks of the codec's clock, because packets of equal length have unequal sizes.
 */

/** From here on a person should be told. */
export const WARNING_SECONDS = 0.5;

/** A socket that takes nothing for this long is as good as dead, even when nothing else says so. */
export const STUCK_MS = 5000;

const LIMIT_SECONDS = 1.5;
const IN_SOCKET_SECONDS = 0.25;

/**
 * @typedef {import("./coding.js").Packet} Packet
 * @typedef {{bufferedAmount: number, send: (data: Packet["data"]) => void}} Socket
 */

export class SendQueue {
  #clockRate;
  /** @type {Socket | null} */
  #socket = null;
  /** @type {Packet[]} */
  #packets = [];
  #ticks = 0;
  /**
   * What the socket was given and may still hold, the oldest first.
   *
   * @type {Packet[]}
   */
  #given = [];
  #givenBytes = 0;
  #givenTicks = 0;
  #droppedTicks = 0;
  #movedAt = 0;

  /** @param {number} clockRate Ticks a second of the packets. */
  constructor(clockRate) {
    this.#clockRate = clockRate;
  }

  /** How late the audio that is pushed now will leave. */
  get waitingSeconds() {
    return (this.#ticks + this.#givenTicks) / this.#clockRate;
  }

  get droppedSeconds() {
    return this.#droppedTicks / this.#clockRate;
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
    this.#send();
  }

  /** Keeps what comes until `connect`; counts as dropped what the old socket had not sent when it was last looked at. */
  disconnect() {
    this.#droppedTicks += this.#givenTicks;
    this.#given = [];
    this.#givenBytes = 0;
    this.#givenTicks = 0;
    this.#socket = null;
  }

  /**
   * Sends a packet, now or after those before it.
   *
   * @param {Packet} packet
   * @param {number} nowMs
   */
  push(packet, nowMs) {
    this.#packets.push(packet);
    this.#ticks += packet.ticks;
    const hasMoved = this.#lookAtSocket();
    this.#send();
    while (this.#packets.length > 0 && this.waitingSeconds > LIMIT_SECONDS) {
      this.#droppedTicks += this.#take().ticks;
    }
    if (hasMoved || this.#packets.length === 0) {
      this.#movedAt = nowMs;
    }
  }

  /**
   * Tells whether packets wait and the socket has taken none for `STUCK_MS`.
   *
   * @param {number} nowMs
   */
  isStuck(nowMs) {
    return this.#socket !== null && this.#packets.length > 0 && nowMs - this.#movedAt >= STUCK_MS;
  }

  /** Gives the socket all that waits. */
  flush() {
    while (this.#socket !== null && this.#packets.length > 0) {
      this.#give(this.#socket);
    }
  }

  #send() {
    while (
      this.#socket !== null &&
      this.#packets.length > 0 &&
      this.#givenTicks < IN_SOCKET_SECONDS * this.#clockRate
    ) {
      this.#give(this.#socket);
    }
  }

  /** @param {Socket} socket */
  #give(socket) {
    const packet = this.#take();
    socket.send(packet.data);
    this.#given.push(packet);
    this.#givenBytes += packet.data.byteLength;
    this.#givenTicks += packet.ticks;
    this.#lookAtSocket();
  }

  /** Forgets the packets that have left the socket. @returns {boolean} whether any has. */
  #lookAtSocket() {
    const held = this.#socket?.bufferedAmount ?? 0;
    const before = this.#given.length;
    while (this.#given.length > 0 && this.#givenBytes - this.#given[0].data.byteLength >= held) {
      const { data, ticks } = /** @type {Packet} */ (this.#given.shift());
      this.#givenBytes -= data.byteLength;
      this.#givenTicks -= ticks;
    }
    return this.#given.length < before;
  }

  /** Takes the oldest of the packets that wait; there must be one. */
  #take() {
    const packet = /** @type {Packet} */ (this.#packets.shift());
    this.#ticks -= packet.ticks;
    return packet;
  }
}
