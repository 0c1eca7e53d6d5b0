/** Tests what the conductor does with sound while the audio thread stands still, and what it counts meanwhile. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Conductor } from "../../relay/pages/player/conductor.js";
import { Intake } from "../../relay/pages/player/intake.js";
import { RelayClock } from "../../relay/pages/player/relay-clock.js";

const FRAME_MS = 20;
const TARGET_MS = 200;

/** The most frames that overlap a stretch of the target and 250 ms. At each end, one frame may be partly inside. */
const MOST_FRAMES = Math.ceil((TARGET_MS + 250) / FRAME_MS) + 1;

function formatAt(rate) {
  return { codec: "pcm_s16le", rate, channels: 1, clock_rate: rate };
}

function frameOf({ epoch = 7, seq, rate = 16_000 }, dueMs) {
  const count = (rate * FRAME_MS) / 1000;
  const message = new ArrayBuffer(16 + 2 * count);
  const header = new DataView(message);
  header.setUint8(0, 1);
  header.setUint16(2, epoch);
  header.setUint32(4, seq);
  header.setUint32(8, seq * count);
  header.setUint32(12, dueMs);
  return message;
}

/** Drives a conductor over a network without jitter, and records its orders. */
class Stand {
  now = 1000;
  orders = [];
  conductor = new Conductor({ latency: "balanced", send: (order) => this.orders.push(order) });

  constructor() {
    const place = { epoch: 7, next_seq: 0, clock_ms: this.now, resumed: false };
    const session = { session: "ev1", session_name: null, channel: "main", channels: [], silence: null };
    this.conductor.hello(
      { type: "hello", ...session, state: "live", pace: "live", format: formatAt(16_000), ...place },
      this.now,
    );
  }

  hear(seconds, place = {}) {
    for (let seq = 0; seq < (seconds * 1000) / FRAME_MS; seq += 1) {
      this.now += FRAME_MS;
      this.conductor.frame(frameOf({ ...place, seq }, this.now), this.now);
    }
  }

  /** The number of samples in each frame that the audio thread received. */
  get sizes() {
    return this.orders.filter(({ type }) => type === "audio").map(({ samples }) => samples.length);
  }

  /** @param {number} underruns */
  answer(underruns) {
    const counts = { concealedSeconds: 0, underruns, lostSeconds: 0 };
    /** @type {import("../../relay/pages/player/messages.js").Report} */
    const report = { mode: "playing", frame: 0, offsetSeconds: 0, newest: 0, heldSeconds: 0.2, ...counts };
    this.conductor.ask();
    this.conductor.answer({ id: this.orders.at(-1).id, report }, this.now);
  }
}

test("only the newest sound is kept while nothing is rendered", () => {
  const stand = new Stand();
  stand.hear(60);
  stand.conductor.setRendering(true);
  assert.ok(stand.sizes.length > TARGET_MS / FRAME_MS);
  assert.ok(stand.sizes.length <= MOST_FRAMES, `${stand.sizes.length}`);
});

test("a stall while nothing is rendered costs only the frames that came too late", () => {
  const stand = new Stand();
  stand.hear(1);
  const stallEndsMs = stand.now + 2000;
  for (let seq = 50; seq < 200; seq += 1) {
    stand.now += FRAME_MS;
    stand.conductor.frame(frameOf({ seq }, stand.now), Math.max(stand.now, stallEndsMs));
  }
  stand.conductor.setRendering(true);
  assert.ok(stand.sizes.length > TARGET_MS / FRAME_MS, `${stand.sizes.length}`);
});

test("sound that is held back is dropped when another broadcaster takes over, in any format", () => {
  for (const rate of [48_000, 16_000]) {
    const stand = new Stand();
    stand.hear(10);
    stand.conductor.message({ type: "format", epoch: 8, format: formatAt(rate) }, stand.now);
    stand.hear(8, { epoch: 8, rate });
    stand.conductor.setRendering(true);
    assert.ok(stand.sizes.length <= MOST_FRAMES, `${stand.sizes.length}`);
    assert.ok(stand.sizes.every((size) => size === (rate * FRAME_MS) / 1000));
  }
});

test("sound that is held back is rendered in its own format, although another one followed", () => {
  const stand = new Stand();
  stand.hear(1);
  stand.conductor.message({ type: "format", epoch: 8, format: formatAt(48_000) }, stand.now);
  stand.conductor.setRendering(true);
  assert.deepEqual(new Set(stand.sizes), new Set([(16_000 * FRAME_MS) / 1000]));
  assert.deepEqual(
    stand.orders.filter(({ type }) => type === "format").map(({ rate }) => rate),
    [16_000],
  );
});

test("the record of a frame's place does not keep its samples", () => {
  const clock = new RelayClock();
  clock.hear(0, 0);
  const intake = new Intake(clock);
  intake.setFormat(formatAt(16_000));
  const [{ entry, audio }] = intake.take(frameOf({ seq: 0 }, 0));
  assert.equal(audio.length, 640);
  assert.equal(intake.entry(entry.number).durationMs, FRAME_MS);
  const views = Object.values(intake.entry(entry.number)).filter((value) => ArrayBuffer.isView(value));
  assert.deepEqual(views, []);
});

test("each underrun is counted once, on one audio thread or on several", () => {
  const stand = new Stand();
  for (const underruns of [1, 1, 2]) {
    stand.conductor.setRendering(true);
    stand.answer(underruns);
    stand.conductor.setRendering(false);
  }
  assert.equal(stand.conductor.stats(stand.now).underruns, 2);
  stand.conductor.setRendering(true);
  stand.answer(0);
  stand.answer(1);
  assert.equal(stand.conductor.stats(stand.now).underruns, 3);
});
