/** Tests Opus from the relay to the speaker: packets, packed messages, failing decoders and changes of codec. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Adapter } from "../../relay/pages/player/adapter.js";
import { Decoding } from "../../relay/pages/player/decoding.js";
import { opusTicks } from "../../relay/pages/player/opus-packet.js";
import { openWasm } from "../../relay/pages/player/wasm-opus.js";
import { readFrames } from "../../relay/pages/player/wire.js";
import { levels, longestSilence, worstBreak } from "./support/ear.js";
import { FakeRelay, playing } from "./support/fake-relay.js";
import { fromHex, toHex } from "./support/hex.js";
import { opusMessage, packetOf, toneDecoder } from "./support/opus.js";
import { tone } from "./support/simulation.js";

const TONE = 997;
const DEVICE_RATE = 48_000;
const CLICK = 0.005;

const sound = tone(TONE, 48_000);

/** Returns a relay whose listener plays Opus. */
function listening(options = {}) {
  return playing({ codecs: ["opus", "pcm_s16le"], decoders: [toneDecoder({ sound })], ...options });
}

function assertUnbroken({ recording, stats }) {
  assert.ok(worstBreak(recording, TONE, DEVICE_RATE) < CLICK, `${worstBreak(recording, TONE, DEVICE_RATE)}`);
  assert.ok(longestSilence(recording, DEVICE_RATE) < 0.001);
  assert.ok(Math.min(...levels(recording, DEVICE_RATE, 0.02)) > -0.5);
  const { underruns, jumps, gaps } = stats;
  assert.deepEqual({ underruns, jumps, gaps }, { underruns: 0, jumps: 0, gaps: 0 });
}

const vectors = JSON.parse(readFileSync(new URL("../vectors/opus.json", import.meta.url), "utf8"));
const { packed } = JSON.parse(readFileSync(new URL("../vectors/header.json", import.meta.url), "utf8"));

test("the first bytes of a packet give its duration, for the test vectors of all implementations", () => {
  assert.ok(vectors.well_formed.length > 30);
  for (const { name, hex, duration_ms: durationMs } of vectors.well_formed) {
    assert.equal(opusTicks(fromHex(hex)), durationMs * 48, name);
  }
  for (const bytes of [[], [3], [3, 0], [(1 << 3) | 3, 7], [(3 << 3) | 3, 3]]) {
    assert.throws(() => opusTicks(Uint8Array.from(bytes)), RangeError, `${bytes}`);
  }
});

for (const { name, hex, epoch, frames } of packed) {
  test(`the packed message "${name}" is read, as in the test vectors of all implementations`, () => {
    assert.deepEqual(
      readFrames(fromHex(hex).buffer, true).map(({ audio, ...numbers }) => [numbers, toHex(audio)]),
      frames.map(({ seq, media_time: mediaTime, due_ms: dueMs, packet }) => [{ epoch, seq, mediaTime, dueMs }, packet]),
    );
  });
}

test("a packed message that is cut off or contains an invalid packet is refused", () => {
  const place = { epoch: 7, seq: 5, dueMs: 100 };
  const message = opusMessage(place, [packetOf(1), packetOf(2), packetOf(3)]);
  for (const cut of [1, 6]) {
    assert.throws(() => readFrames(message.slice(0, message.byteLength - cut), true), RangeError);
  }
  assert.throws(() => readFrames(opusMessage(place, [packetOf(1), new Uint8Array(0)]), true), RangeError);
});

test("libopus as WebAssembly decodes real packets of a tone", async () => {
  const bytes = readFileSync(new URL("../../relay/pages/player/opus-decoder.wasm", import.meta.url));
  const module = await WebAssembly.compile(bytes);
  const { packets } = JSON.parse(readFileSync(new URL("./support/opus-tone.json", import.meta.url), "utf8"));
  for (const channels of [1, 2]) {
    const heard = Array.from({ length: channels }, () => []);
    let failures = 0;
    const decoder = openWasm(module, channels, {
      output: ({ planes, rate }) => {
        assert.equal(rate, 48_000);
        for (const [channel, plane] of planes.entries()) {
          heard[channel].push(...plane);
        }
      },
      fail: () => {
        failures += 1;
      },
    });
    for (const hex of packets) {
      decoder.decode(fromHex(hex), 960);
    }
    for (const samples of heard) {
      assert.equal(samples.length, packets.length * 960);
      const steady = samples.slice(0.2 * 48_000);
      assert.ok(worstBreak(steady, TONE, 48_000) < CLICK);
      assert.ok(levels(steady, 48_000, 0.02).every((level) => Math.abs(level) < 0.5));
    }
    assert.equal(failures, 0);
    decoder.decode(Uint8Array.of(3), 0);
    assert.equal(failures, 1);
  }
});

test("a change of the sample rate makes no break, and the new sound begins at the right place", () => {
  for (const [from, to] of [
    [16_000, 48_000],
    [48_000, 16_000],
  ]) {
    const adapter = new Adapter({ rate: from, channels: 2 }, { rate: to, channels: 1 });
    const source = tone(TONE, from);
    const count = from / 50;
    const heard = [];
    for (let frame = 0; frame < 10; frame += 1) {
      const samples = Int16Array.from({ length: 2 * count }, (_, i) =>
        Math.round(32_767 * source(frame * count + Math.floor(i / 2))),
      );
      const { samples: converted, lead } = adapter.convert(samples);
      assert.equal(heard.length, Math.round((frame * count * to) / from) - lead);
      heard.push(...[...converted].map((sample) => sample / 32_768));
    }
    assert.ok(heard.length > 0.19 * to);
    const wanted = tone(TONE, to);
    const settled = heard.slice(0.01 * to);
    const worst = Math.max(...settled.map((sample, i) => Math.abs(sample - wanted(i + 0.01 * to))));
    assert.ok(worst < 0.001, `${from} to ${to}: ${worst}`);
  }
});

/** Returns a `Decoding` with a record of its results. The number of a packet is that of its frame. */
function bench(decoders) {
  const delivered = [];
  const stand = { delivered, exhausted: 0 };
  const decoding = new Decoding({
    deliver: ({ number }, { samples }) => delivered.push([number, samples.length]),
    exhaust: () => {
      stand.exhausted += 1;
    },
  });
  decoding.setDecoders(decoders);
  stand.decoding = decoding;
  const entry = (number) =>
    /** @type {import("../../relay/pages/player/intake.js").Entry} */ ({ number, durationMs: 20 });
  stand.packet = (number, isFirst = false) =>
    decoding.takePacket(entry(number), { audio: packetOf(number), ticks: 960, channels: 1 }, isFirst);
  stand.sound = (number) =>
    decoding.takeSound(entry(number), { samples: new Int16Array(320), rate: 16_000, channels: 1 });
  return stand;
}

test("sound comes in the order of its frames, even if a decoder is late", () => {
  const late = [];
  const stand = bench([toneDecoder({ sound, later: (action) => late.push(action) })]);
  stand.packet(0, true);
  stand.packet(1);
  stand.sound(2);
  assert.deepEqual(stand.delivered, []);
  assert.equal(stand.decoding.isIdle, false);
  stand.packet(3, true);
  for (const action of late) {
    action();
  }
  assert.deepEqual(stand.delivered, [
    [0, 960],
    [1, 960],
    [2, 320],
    [3, 960],
  ]);
  assert.equal(stand.decoding.isIdle, true);
});

test("the next decoder takes over the packets of one that failed", async () => {
  const late = [];
  const broken = toneDecoder({ sound, later: (action) => late.push(action), failsAfter: 2 });
  const stand = bench([broken, async (...given) => toneDecoder({ sound })(...given)]);
  for (const number of [0, 1, 2, 3]) {
    stand.packet(number, number === 0);
  }
  for (const action of late) {
    action();
  }
  assert.equal(stand.delivered.length, 2);
  stand.sound(4);
  await undefined;
  await undefined;
  assert.deepEqual(
    stand.delivered.map(([number]) => number),
    [0, 1, 2, 3, 4],
  );
  assert.equal(stand.exhausted, 0);
});

test("if the only decoder fails, its packets are lost and nothing else", () => {
  const short = (_, { output }) => ({ decode: () => output({ planes: [new Float32Array(480)], rate: 48_000 }) });
  const none = () => {
    throw new Error("none");
  };
  for (const broken of [short, none, () => ({ decode: none })]) {
    const decoder = (channels, events) => ({ close() {}, ...broken(channels, events) });
    const stand = bench([decoder]);
    stand.packet(0, true);
    stand.sound(1);
    stand.packet(2);
    assert.deepEqual(stand.delivered, [[1, 320]]);
    assert.equal(stand.exhausted, 1);
    assert.equal(stand.decoding.isIdle, true);
  }
});

test("a decoder that owes 15 s of sound has failed", () => {
  const stand = bench([() => ({ decode() {}, close() {} })]);
  for (let number = 0; number < 752; number += 1) {
    stand.packet(number, number === 0);
  }
  assert.equal(stand.exhausted, 1);
});

test("a player that can decode Opus asks for it first, and reports the codec that it gets", () => {
  const relay = listening();
  assert.match(relay.attempts[0].address, /\?codec=opus%2Cpcm_s16le&coalesce_ms=40&packet_ms=40&burst_ms=200$/);
  relay.recording = [];
  relay.run(10_000);
  assertUnbroken(relay);
  assert.equal(relay.stats.codec, "opus");
  // A message of two packets with 5 bytes each has 16 + 2 · (2 + 5) bytes.
  assert.ok(Math.abs(relay.stats.bitsPerSecond - 30 * 8 * 25) < 100, `${relay.stats.bitsPerSecond}`);
  const pcm = playing({ codecs: ["pcm_s16le"], decoders: [toneDecoder({ sound })] });
  assert.equal(pcm.stats.codec, "pcm_s16le");
});

for (const [codec, other] of /** @type {const} */ ([
  ["opus", "pcm_s16le"],
  ["pcm_s16le", "opus"],
])) {
  for (const latency of ["low", "stable"]) {
    test(`a change from ${codec} to ${other} makes no break (${latency})`, () => {
      const relay = listening({ latency, codec });
      relay.run(3000);
      assert.equal(relay.stats.codec, codec);
      relay.recording = [];
      relay.session.setCodec(other);
      relay.run(3000);
      assert.equal(relay.stats.codec, other);
      assert.equal(relay.attempts.length, 1);
      assertUnbroken(relay);
      relay.session.setCodec(codec);
      relay.run(3000);
      assert.equal(relay.stats.codec, codec);
      assertUnbroken(relay);
      assert.equal(relay.stats.reconnects, 0);
    });
  }
}

test("a change of codec while the connection opens takes effect on that connection", () => {
  const relay = new FakeRelay({ codecs: ["opus", "pcm_s16le"], decoders: [toneDecoder({ sound })] });
  relay.run(3);
  relay.session.setCodec("pcm_s16le");
  relay.run(3000);
  assert.deepEqual([relay.stats.codec, relay.attempts.length], ["pcm_s16le", 1]);
});

test("when the last decoder fails, the player continues with PCM on the same connection", () => {
  const relay = listening({ decoders: [toneDecoder({ sound, failsAfter: 400 })], latency: "stable" });
  relay.run(20_000);
  assert.deepEqual([relay.stats.codec, relay.attempts.length, relay.stats.reconnects], ["pcm_s16le", 1, 0]);
  assert.equal(relay.status.state, "playing");
  relay.sockets[0].break(1006);
  relay.run(2000);
  assert.equal(new URL(relay.attempts[1].address).searchParams.get("codec"), "pcm_s16le");
});

for (const latency of ["low", "balanced", "stable"]) {
  test(`a broken connection resumes in Opus, with each packet once (${latency})`, () => {
    const relay = listening({ latency });
    relay.random = 0;
    relay.recording = [];
    relay.sockets[0].break(1006);
    relay.run(5000);
    const query = new URL(relay.attempts[1].address).searchParams;
    assert.equal(query.get("after_codec"), "opus");
    if (latency !== "low") {
      assertUnbroken(relay);
    }
    assert.equal(relay.stats.gaps, 0);
  });
}

test("a connection that resumes in another codec continues where the sound ended", () => {
  const relay = listening({ latency: "stable" });
  relay.random = 0;
  relay.codecs = ["pcm_s16le"];
  relay.sockets[0].break(1006);
  relay.run(5000);
  assert.equal(relay.stats.codec, "pcm_s16le");
  assert.equal(relay.status.state, "playing");
  assert.equal(relay.stats.gaps, 1);
  assert.ok(relay.stats.gapMs < 200);
});
