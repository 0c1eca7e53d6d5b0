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

/** Lets `ms` pass for timers, and runs what waits for them. */
async function pass(ms) {
  mock.timers.tick(ms);
  await setImmediate();
}

const stops = (news) => news.filter(({ state }) => state === "stopped").map(({ code }) => code);

test("an end that the relay does not confirm is not reported as an end", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  for (const [farewell, code] of /** @type {const} */ ([
    ["end", "not-ended"],
    ["pause", 1000],
  ])) {
    const { uplink, news } = start({ hasOpus: false });
    const socket = FakeWebSocket.all.at(-1);
    socket.say(HELLO);
    uplink[farewell]();
    await setImmediate();
    assert.deepEqual(socket.said, [{ type: farewell }]);
    await pass(5999);
    assert.deepEqual(stops(news), []);
    await pass(1);
    assert.deepEqual(stops(news), [code]);
  }
});

test("an encoder that hangs delays the end by a second, and emits nothing after it", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const behaviour = { hangs: false };
  const encoders = installEncoder(behaviour);
  const { uplink, news } = start();
  const [socket] = FakeWebSocket.all;
  socket.say(HELLO);
  behaviour.hangs = true;
  uplink.push(sound(960));
  uplink.end();
  await pass(999);
  assert.deepEqual(socket.said, []);
  await pass(1);
  behaviour.hangs = false;
  await encoders[0].flush();
  assert.deepEqual([socket.said, socket.audio.length], [[{ type: "end" }], 0]);
  socket.end(1000);
  assert.deepEqual(stops(news), [1000]);
});

test("an encoder that fails at the end does not break the connection on which the end goes out", async () => {
  const behaviour = { hangs: false };
  const encoders = installEncoder(behaviour);
  const { uplink, rates } = start();
  const [socket] = FakeWebSocket.all;
  socket.say(HELLO);
  uplink.push(sound(960));
  await setImmediate();
  uplink.end();
  encoders[0].fail("The codec was reclaimed.");
  await setImmediate();
  assert.deepEqual([socket.said, socket.audio.length, rates()], [[{ type: "end" }], 1, [48_000]]);
});

test("an end while the connection is broken follows the queued sound on the next one", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const { uplink, news } = start({ hasOpus: false });
  FakeWebSocket.all[0].say(HELLO);
  FakeWebSocket.all[0].end(1006);
  uplink.push(sound(320));
  uplink.end();
  uplink.push(sound(320)); // The source has ended, so this is silence.
  await pass(1000);
  const [, socket] = FakeWebSocket.all;
  socket.say(HELLO);
  await setImmediate();
  assert.deepEqual([socket.audio.length, socket.said], [1, [{ type: "end" }]]);
  socket.end(1000);
  assert.deepEqual(stops(news), [1000]);

  const failing = start({ hasOpus: false });
  FakeWebSocket.all[2].say(HELLO);
  FakeWebSocket.all[2].end(1006);
  failing.uplink.end();
  await pass(1000);
  FakeWebSocket.all[3].end(1006);
  assert.deepEqual(stops(failing.news), ["not-ended"]);
});

test("sound that waits as Opus when the encoder fails counts as dropped", async () => {
  let now = 1000;
  mock.method(performance, "now", () => now);
  mock.timers.enable({ apis: ["setTimeout"] });
  const encoders = installEncoder();
  const { uplink, news } = start();
  FakeWebSocket.all[0].say(HELLO);
  FakeWebSocket.all[0].end(1006);
  const way = async (samples) => {
    now += 1000;
    uplink.push(sound(samples));
    await setImmediate();
    now += 1000;
    uplink.push(sound(samples));
    const { waitingSeconds, droppedSeconds } = news.filter(({ type }) => type === "way").at(-1);
    return [waitingSeconds.toFixed(2), droppedSeconds.toFixed(2)];
  };
  for (let i = 0; i < 98; i += 1) {
    uplink.push(sound(960));
    await setImmediate();
  }
  assert.deepEqual(await way(960), ["1.50", "0.48"]);
  await setImmediate();
  encoders[0].fail("The codec was reclaimed.");
  assert.deepEqual(await way(320), ["0.04", "2.00"]);
  mock.restoreAll();
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
