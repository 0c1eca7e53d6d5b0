/** Tests how the broadcasting page sends to the relay: codecs, the order of messages, and failures. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { setImmediate } from "node:timers/promises";

import { Uplink } from "../../relay/pages/uplink.js";
import { installEncoder } from "./support/fake-encoder.js";

const ADDRESS = "ws://relay/v1/broadcast/ev1/main?pace=live";
const HELLO = { type: "hello", protocol: "relay.v1", connection_id: "c1" };

class FakeWebSocket {
  /** @type {FakeWebSocket[]} */
  static all = [];
  bufferedAmount = 0;
  sent = [];
  onmessage = null;
  onclose = null;

  constructor(address) {
    this.query = new URL(address).searchParams;
    FakeWebSocket.all.push(this);
  }

  send(data) {
    this.sent.push(typeof data === "string" ? JSON.parse(data) : data);
  }

  close() {}

  say(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }

  end(code) {
    this.onclose({ code, reason: "" });
  }

  get audio() {
    return /** @type {(Int16Array | Uint8Array)[]} */ (this.sent.filter((data) => ArrayBuffer.isView(data)));
  }

  get said() {
    return this.sent.filter(({ type }) => type !== undefined && type !== "ping");
  }
}

const uplinks = [];

function start({ hasOpus = true } = {}) {
  const news = [];
  const uplink = new Uplink({ address: ADDRESS, protocols: [] }, { hasOpus }, (said) => news.push(said));
  uplinks.push(uplink);
  return { uplink, news, rates: () => news.filter(({ type }) => type === "rate").map(({ rate }) => rate) };
}

const sound = (samples) => new Int16Array(samples).fill(1);

beforeEach(() => {
  Object.assign(globalThis, { WebSocket: FakeWebSocket });
  FakeWebSocket.all = [];
});

afterEach(() => {
  mock.timers.reset();
  for (const uplink of uplinks.splice(0)) {
    uplink.close();
  }
});

test("Opus is announced with a rate for PCM listeners, and each packet is a message", async () => {
  installEncoder();
  const { uplink, rates } = start();
  const [socket] = FakeWebSocket.all;
  assert.deepEqual(
    ["codec", "rate", "channels", "pace"].map((name) => socket.query.get(name)),
    ["opus", "16000", "1", "live"],
  );
  assert.deepEqual(rates(), [48_000]);
  uplink.push(sound(960));
  socket.say(HELLO);
  for (let i = 0; i < 3; i += 1) {
    uplink.push(sound(960));
  }
  await setImmediate();
  // Frames from before the relay accepted the broadcaster are not sent.
  assert.deepEqual(
    socket.audio.map((data) => data.byteLength),
    [80, 80, 80],
  );
});

test("the uplink reports the bit rate of its audio", async () => {
  for (const [hasOpus, samples, bits] of /** @type {const} */ ([
    [true, 960, 32_000],
    [false, 320, 256_000],
  ])) {
    installEncoder();
    const { uplink, news } = start({ hasOpus });
    FakeWebSocket.all.at(-1).say(HELLO);
    for (let i = 0; i < 3; i += 1) {
      uplink.push(sound(samples));
    }
    await setImmediate();
    const later = performance.now() + 1000;
    mock.method(performance, "now", () => later);
    uplink.push(sound(samples));
    mock.restoreAll();
    const [way] = news.filter(({ type }) => type === "way").slice(-1);
    assert.equal(way.bitsPerSecond, bits);
  }
});

test("a relay that refuses Opus gets PCM, and one that refuses both ends the uplink", async () => {
  installEncoder();
  const { uplink, news, rates } = start();
  FakeWebSocket.all[0].end(4504);
  assert.equal(FakeWebSocket.all.length, 2);
  const [, socket] = FakeWebSocket.all;
  assert.deepEqual([socket.query.get("codec"), socket.query.get("rate")], ["pcm_s16le", "16000"]);
  assert.deepEqual(rates(), [48_000, 16_000]);
  socket.say(HELLO);
  uplink.push(sound(960)); // made before the rate changed
  uplink.push(sound(320));
  assert.deepEqual(
    socket.audio.map((data) => data.length),
    [320],
  );
  assert.ok(news.every(({ state }) => state !== "stopped"));

  const refused = start();
  FakeWebSocket.all[2].end(4504);
  FakeWebSocket.all[3].end(4504);
  assert.deepEqual(
    [refused.news.at(-1).state, refused.news.at(-1).code, FakeWebSocket.all.length],
    ["stopped", 4504, 4],
  );
});

test("when the encoder fails, the next connection continues with PCM", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const encoders = installEncoder();
  const { uplink, news, rates } = start();
  FakeWebSocket.all[0].say(HELLO);
  uplink.mute(true);
  encoders[0].fail("The codec was reclaimed.");
  assert.equal(news.at(-1).state, "reconnecting");
  assert.deepEqual(rates(), [48_000, 16_000]);
  mock.timers.tick(1000);
  const [, socket] = FakeWebSocket.all;
  assert.deepEqual([socket.query.get("codec"), socket.query.get("takeover")], ["pcm_s16le", "1"]);
  socket.say(HELLO);
  uplink.push(sound(320));
  assert.equal(socket.audio.length, 1);
  assert.deepEqual(socket.said, [{ type: "mute", on: true }]);
});

test("the end follows the last packet, which was still in the encoder", async () => {
  installEncoder();
  const { uplink } = start();
  const [socket] = FakeWebSocket.all;
  socket.say(HELLO);
  uplink.push(sound(960));
  uplink.push(sound(960));
  uplink.end();
  await setImmediate();
  const order = socket.sent.map((data) => (ArrayBuffer.isView(data) ? "audio" : data.type));
  assert.deepEqual(order, ["ping", "audio", "audio", "end"]);
});

test("silence during a mute is encoded like any sound", async () => {
  installEncoder();
  const { uplink } = start();
  const [socket] = FakeWebSocket.all;
  socket.say(HELLO);
  uplink.mute(true);
  uplink.push(new Int16Array(960));
  await setImmediate();
  assert.deepEqual([socket.said, socket.audio.length], [[{ type: "mute", on: true }], 1]);
});
