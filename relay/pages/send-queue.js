/**
 * Holds audio that cannot leave the browser yet, because the network is slower than the sound or interrupted.
 *
 * Data that a WebSocket has accepted cannot be withdrawn. The queue therefore gives the socket little at a time and
 * keeps the rest. Bound: `LIMIT_SECONDS`, including the audio that waits in the socket. Beyond it, the queue drops its
 * oldest packets, and `droppedSeconds` counts them. Time is counted in ticks of the codec's clock, because packets of
 * equal duration differ in size.
 */

/** If more audio than this waits, the page warns the broadcaster. */
export const WARNING_SECONDS = 0.5;

/** A socket that sends nothing for this long counts as dead, even if it reports no error. */
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
   * Packets that the socket has accepted but may not have sent yet, oldest first.
   *
   * @type {Packet[]}
   */
  #given = [];
  #givenBytes = 0;
  #givenTicks = 0;
  #droppedSeconds = 0;
  #movedAt = 0;

  /** @param {number} clockRate Ticks per second of the packets. */
  constructor(clockRate) {
    this.#clockRate = clockRate;
  }

  /** The duration of the audio that waits, here and in the socket. */
  get waitingSeconds() {
    return (this.#ticks + this.#givenTicks) / this.#clockRate;
  }

  get droppedSeconds() {
    return this.#droppedSeconds;
  }

  /**
   * Sends the waiting packets and all later ones to a socket.
   *
   * @param {Socket} socket
   * @param {number} nowMs
   */
  connect(socket, nowMs) {
    this.#socket = socket;
    this.#movedAt = nowMs;
    this.#send();
  }

  /** Keeps all packets until the next `connect`. Packets that the old socket may not have sent count as dropped. */
  disconnect() {
    this.#droppedSeconds += this.#givenTicks / this.#clockRate;
    this.#given = [];
    this.#givenBytes = 0;
    this.#givenTicks = 0;
    this.#socket = null;
  }

  /**
   * Drops all packets and disconnects, because the next packets are in another codec and need another connection.
   *
   * @param {number} clockRate Ticks per second of the next packets.
   */
  restart(clockRate) {
    this.disconnect();
    this.#droppedSeconds += this.#ticks / this.#clockRate;
    this.#packets = [];
    this.#ticks = 0;
    this.#clockRate = clockRate;
  }

  /**
   * Sends a packet as soon as all earlier packets have been sent.
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
      this.#droppedSeconds += this.#take().ticks / this.#clockRate;
    }
    if (hasMoved || this.#packets.length === 0) {
      this.#movedAt = nowMs;
    }
  }

  /**
   * Returns whether packets wait and the socket has sent none for `STUCK_MS`.
   *
   * @param {number} nowMs
   */
  isStuck(nowMs) {
    return this.#socket !== null && this.#packets.length > 0 && nowMs - this.#movedAt >= STUCK_MS;
  }

  /** Gives all waiting packets to the socket. */
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

  /** Forgets the packets that the socket has sent. @returns {boolean} Whether it has sent any. */
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

  /** Removes and returns the oldest waiting packet. There must be one. */
  #take() {
    const packet = /** @type {Packet} */ (this.#packets.shift());
    this.#ticks -= packet.ticks;
    return packet;
  }
}
