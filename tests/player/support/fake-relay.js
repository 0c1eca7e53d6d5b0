/** A relay on a virtual clock for tests of `Session`. Replaces a browser's WebSockets, timers and audio thread. */

import assert from "node:assert/strict";

import { Renderer } from "../../../relay/pages/player/renderer.js";
import { Session } from "../../../relay/pages/player/session.js";
import { OPUS_FORMAT, opusMessage, packetOf } from "./opus.js";
import { tone } from "./simulation.js";

const WAY_MS = 5;
const FRAME_MS = 20;
const RATE = 16_000;
const DEVICE_RATE = 48_000;
const HISTORY_MS = 10_000;

/** Frames that the relay repeats after a switch of codec. */
const PRE_ROLL_FRAMES = 5;

export const FORMAT = Object.freeze({ codec: "pcm_s16le", rate: RATE, channels: 1, clock_rate: RATE });

class FakeSocket {
  bufferedAmount = 0;
  onmessage = null;
  onclose = null;
  onerror = null;
  isOpen = true;
  codec = "pcm_s16le";
  coalesceMs = 0;
  packetMs = 0;
  waiting = [];

  constructor(relay, address, protocols) {
    this.relay = relay;
    this.url = new URL(address);
    this.protocols = protocols;
    this.isServed = false;
  }

  send(text) {
    this.relay.after(WAY_MS, () => this.relay.receive(this, JSON.parse(text)));
  }

  close() {
    this.isOpen = false;
    this.relay.forget(this);
  }

  /** Sends data from the relay to the session. */
  tell(data) {
    this.relay.after(WAY_MS, () => this.isOpen && this.onmessage?.({ data }));
  }

  /** Fails as Chromium does if the page's content security policy forbids the address. */
  fail() {
    this.isOpen = false;
    this.relay.forget(this);
    this.onerror?.({});
  }

  break(code, reason = "") {
    this.relay.forget(this);
    this.isOpen = false;
    this.onclose?.({ code, reason });
  }
}

export class FakeRelay {
  #timers = [];
  #order = 0;
  #blocks = 0;
  #renderer = new Renderer(DEVICE_RATE);
  #left = new Float32Array(128);
  #right = new Float32Array(128);
  now = 1000;
  random = 0.5;
  sockets = [];
  /** Times and addresses of all connection attempts. */
  attempts = [];
  received = [];
  told = [];
  recording = [];
  isReachable = true;
  /** An error that the browser throws instead of connecting, or null. */
  obstacle = null;
  isSilent = false;
  /** Whether the audio thread neither plays nor answers. */
  standsStill = false;
  state = "live";
  silence = null;
  epoch = 300;
  knowsDelivery = true;
  codecs = ["pcm_s16le"];
  channels = [
    { id: "main", name: "Floor", lang: null, state: "live" },
    { id: "de", name: "Deutsch", lang: "de", state: "live" },
  ];

  /**
   * @param {object} [options]
   * @param {import("../../../relay/pages/player/types.js").Latency} [options.latency]
   * @param {string} [options.channel]
   * @param {string | null} [options.token]
   * @param {Error | null} [options.obstacle] An error that the browser throws instead of connecting.
   * @param {boolean} [options.isReachable]
   * @param {boolean} [options.saveData]
   * @param {import("../../../relay/pages/player/types.js").Codec} [options.codec]
   * @param {any[]} [options.decoders]
   * @param {string[]} [options.codecs] Codecs that the relay serves.
   * @param {number} [options.mostGathered] Maximum of coalescing and packing that the relay grants, in ms.
   */
  constructor({
    latency = "balanced",
    channel = "main",
    token = null,
    obstacle = null,
    isReachable = true,
    saveData = false,
    codec = "opus",
    decoders = [],
    codecs = ["pcm_s16le"],
    mostGathered = Infinity,
  } = {}) {
    this.mostGathered = mostGathered;
    this.codecs = codecs;
    this.obstacle = obstacle;
    this.isReachable = isReachable;
    /** @type {any} The parts of a browser that a session uses. */
    const world = {
      now: () => this.now,
      random: () => this.random,
      connect: (address, protocols) => this.#connect(address, protocols),
      setTimer: (callback, delayMs) => this.after(delayMs, callback),
      clearTimer: (timer) => {
        if (timer) {
          timer.action = () => {};
        }
      },
    };
    this.session = new Session({
      request: { url: "ws://relay", session: "ev1", channel, token, latency, saveData, codec },
      tell: (message) => this.told.push({ now: this.now, ...message }),
      world,
    });
    /** @type {any} The parts of a `MessagePort` that a session uses. */
    const port = {
      onmessage: null,
      close() {},
      postMessage: (order) => {
        this.after(1, () => {
          if (this.standsStill) {
            return;
          }
          if (order.type === "report") {
            const report = this.#renderer.report();
            this.after(1, () => port.onmessage({ data: { id: order.id, report } }));
          } else {
            this.#renderer.obey(order);
          }
        });
      },
    };
    this.session.start();
    this.session.connect(decoders);
    this.session.setPort(port);
    this.session.setRunning(true);
    this.#renderSome();
    this.#broadcast();
  }

  get states() {
    return this.told.filter(({ type }) => type === "status").map(({ state }) => state);
  }

  /** The latest status message to the page. */
  get status() {
    return this.told.filter(({ type }) => type === "status").pop();
  }

  get stats() {
    return this.told.filter(({ type }) => type === "stats").pop().stats;
  }

  after(delayMs, action) {
    this.#order += 1;
    const timer = { atMs: this.now + delayMs, order: this.#order, action };
    let index = this.#timers.length;
    while (index > 0 && this.#timers[index - 1].atMs > timer.atMs) {
      index -= 1;
    }
    this.#timers.splice(index, 0, timer);
    return timer;
  }

  run(ms) {
    const untilMs = this.now + ms;
    while (this.#timers.length > 0 && this.#timers[0].atMs <= untilMs) {
      const { atMs, action } = this.#timers.shift();
      this.now = atMs;
      action();
    }
    this.now = untilMs;
  }

  forget(socket) {
    this.sockets = this.sockets.filter((other) => other !== socket);
  }

  receive(socket, message) {
    this.received.push({ now: this.now, ...message });
    if (this.isSilent || !socket.isOpen) {
      return;
    }
    if (message.type === "ping") {
      socket.tell(JSON.stringify({ ...message, type: "pong", clock_ms: this.now }));
    } else if (message.type === "delivery") {
      Object.assign(socket, { coalesceMs: message.coalesce_ms, packetMs: message.packet_ms });
      socket.tell(JSON.stringify(message));
    } else if (message.type === "switch" && message.channel === undefined) {
      // Repeats some frames in the new codec, because a decoder needs them to converge.
      this.#flush(socket);
      socket.codec = this.#choose(message.codec);
      const from = this.#liveSeq - PRE_ROLL_FRAMES;
      this.#greet(socket, from, false);
      this.#send(socket, from, this.#liveSeq);
    } else if (message.type === "switch") {
      if (this.channels.some(({ id }) => id === message.channel)) {
        socket.channel = message.channel;
        socket.waiting = [];
        this.#greet(socket, this.#liveSeq, false);
      } else {
        socket.tell(JSON.stringify({ type: "error", code: 4504, message: `There is no channel ${message.channel}.` }));
      }
    }
  }

  /** Sequence number of the next frame. Frame 0 was due at 0, and another is due every `FRAME_MS`. */
  get #liveSeq() {
    return Math.floor(this.now / FRAME_MS) + 1;
  }

  #connect(address, protocols) {
    this.attempts.push({ now: this.now, address });
    if (this.obstacle !== null) {
      throw this.obstacle;
    }
    const socket = new FakeSocket(this, address, protocols);
    if (!this.isReachable) {
      this.after(WAY_MS, () => socket.isOpen && socket.break(1006));
      return socket;
    }
    this.sockets.push(socket);
    this.after(2 * WAY_MS, () => this.#serve(socket));
    return socket;
  }

  #serve(socket) {
    if (!socket.isOpen || this.isSilent) {
      return;
    }
    const query = socket.url.searchParams;
    socket.channel = socket.url.pathname.split("/")[4] ?? "main";
    socket.codec = this.#choose(query.get("codec"));
    socket.coalesceMs = Math.min(this.mostGathered, Number(query.get("coalesce_ms") ?? 0));
    socket.packetMs = Math.min(this.mostGathered, Number(query.get("packet_ms") ?? 0));
    const isSameCodec = (query.get("after_codec") ?? "pcm_s16le") === socket.codec;
    const isResumed = Number(query.get("epoch") ?? -1) === this.epoch && isSameCodec;
    let from = this.#liveSeq;
    if (isResumed) {
      from = Number(query.get("after")) + 1;
    } else if (query.has("burst_ms")) {
      from = Math.max(0, from - Math.round(Number(query.get("burst_ms")) / FRAME_MS));
    }
    this.#greet(socket, from, isResumed);
    const oldest =
      this.#liveSeq - Math.round(Math.min(HISTORY_MS, Number(query.get("buffer_ms") ?? 10_000)) / FRAME_MS);
    if (from < oldest) {
      const duration = (oldest - from) * FRAME_MS;
      const gap = { epoch: this.epoch, from_seq: from, to_seq: oldest - 1, duration_ms: duration, reason: "resume" };
      socket.tell(JSON.stringify({ type: "gap", ...gap }));
    }
    this.#send(socket, Math.max(from, oldest), this.#liveSeq);
    this.#flush(socket);
  }

  #choose(codecs) {
    return codecs.split(",").find((codec) => this.codecs.includes(codec));
  }

  /** Sends frames in messages of the size that the socket requested. The last frames wait for more. */
  #send(socket, from, to) {
    for (let seq = from; seq < to; seq += 1) {
      socket.waiting.push(seq);
      if (socket.waiting.length >= this.#gathered(socket)) {
        this.#flush(socket);
      }
    }
  }

  /** The number of frames per message. */
  #gathered({ codec, coalesceMs, packetMs }) {
    return Math.max(1, Math.floor(Math.max(coalesceMs, codec === "opus" ? packetMs : 0) / FRAME_MS));
  }

  #flush(socket) {
    const { codec, packetMs, waiting } = socket;
    socket.waiting = [];
    if (codec !== "opus") {
      for (const seq of waiting) {
        socket.tell(this.#frame(seq));
      }
      return;
    }
    const most = Math.max(1, Math.floor(packetMs / FRAME_MS));
    for (let at = 0; at < waiting.length; at += most) {
      const packed = waiting.slice(at, at + most);
      const place = { epoch: this.epoch, seq: packed[0], dueMs: packed[0] * FRAME_MS };
      socket.tell(opusMessage(place, packed.map(packetOf)));
    }
  }

  #greet(socket, nextSeq, resumed) {
    socket.isServed = true;
    socket.tell(
      JSON.stringify({
        type: "hello",
        session: "ev1",
        channel: socket.channel,
        channels: this.channels,
        state: this.state,
        silence: this.silence,
        pace: "live",
        format: socket.codec === "opus" ? OPUS_FORMAT : FORMAT,
        coalesce_ms: socket.coalesceMs,
        ...(this.knowsDelivery ? { packet_ms: socket.codec === "opus" ? socket.packetMs : 0 } : {}),
        epoch: this.epoch,
        next_seq: nextSeq,
        clock_ms: this.now,
        resumed,
      }),
    );
  }

  #frame(seq) {
    const count = (RATE * FRAME_MS) / 1000;
    const message = new ArrayBuffer(16 + 2 * count);
    const header = new DataView(message);
    header.setUint8(0, 1);
    header.setUint16(2, this.epoch);
    header.setUint32(4, seq);
    header.setUint32(8, seq * count);
    header.setUint32(12, seq * FRAME_MS);
    const sound = tone(997, RATE);
    new Int16Array(message, 16).forEach((_, i, samples) => {
      samples[i] = Math.round(32_767 * sound(seq * count + i));
    });
    return message;
  }

  #broadcast() {
    const seq = Math.round(this.now / FRAME_MS);
    if (!this.isSilent && this.state === "live") {
      for (const socket of this.sockets.filter(({ isServed }) => isServed)) {
        this.#send(socket, seq, seq + 1);
      }
    }
    this.after(FRAME_MS, () => this.#broadcast());
  }

  #renderSome() {
    const begin = this.now - (this.#blocks * 128_000) / DEVICE_RATE;
    for (let block = 0; block < 4; block += 1) {
      if (!this.standsStill) {
        this.#renderer.render(this.#left, this.#right);
        this.recording.push(...this.#left);
      }
      this.#blocks += 1;
    }
    this.after(begin + (this.#blocks * 128_000) / DEVICE_RATE - this.now, () => this.#renderSome());
  }
}

/** Returns a relay whose listener has been playing for three seconds. */
export function playing(options) {
  const relay = new FakeRelay(options);
  relay.run(3000);
  assert.equal(relay.states.pop(), "playing");
  return relay;
}
