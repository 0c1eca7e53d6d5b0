/** Tests how long the relay may gather frames for one message, and that listeners hear them no later for it. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Arrivals } from "../../relay/pages/player/arrivals.js";
import { Delivery } from "../../relay/pages/player/delivery.js";
import { RelayClock } from "../../relay/pages/player/relay-clock.js";
import { TargetDelay } from "../../relay/pages/player/target-delay.js";
import { longestSilence, worstBreak } from "./support/ear.js";
import { FakeRelay, playing } from "./support/fake-relay.js";
import { toneDecoder } from "./support/opus.js";
import { tone } from "./support/simulation.js";

const WANTED = /** @type {const} */ ([
  ["low", 0],
  ["balanced", 40],
  ["stable", 100],
]);

for (const [latency, ms] of WANTED) {
  test(`${latency} lets the relay gather ${ms} ms`, () => {
    assert.deepEqual(new Delivery(latency, false).wanted, { coalesce_ms: ms, packet_ms: ms });
    assert.deepEqual(new Delivery(latency, true).wanted, { coalesce_ms: ms, packet_ms: Math.max(60, ms) });
  });
}

test("a slower network reduces gathering at once, and a faster one extends it after 10 s", () => {
  const delivery = new Delivery("balanced", false);
  const at = (networkMs, nowMs) => {
    delivery.follow(networkMs, nowMs);
    return delivery.wanted.coalesce_ms;
  };
  assert.deepEqual([at(35, 0), at(155, 10), at(175, 20), at(195, 30), at(300, 40)], [40, 40, 20, 0, 0]);
  assert.deepEqual([at(155, 1000), at(155, 10_999), at(185, 11_000), at(155, 11_500)], [0, 0, 0, 0]);
  assert.deepEqual([at(155, 21_499), at(155, 21_500)], [0, 40]);
  delivery.setLatency("stable");
  assert.equal(delivery.wanted.coalesce_ms, 100);
});

test("a relay that delays even the last frame of a message does not raise the base, within what it announced", () => {
  const baseOf = (gatheringMs, heldMs) => {
    const clock = new RelayClock();
    clock.hear(0, 5);
    const arrivals = new Arrivals(clock);
    arrivals.setGathering(gatheringMs);
    arrivals.restart(false, false);
    for (let ms = 0; ms < 1000; ms += 20) {
      arrivals.note(ms, ms, ms + 5 + heldMs, false);
    }
    return arrivals.baseMs;
  };
  assert.deepEqual([baseOf(0, 0), baseOf(40, 0), baseOf(40, 20), baseOf(40, 60), baseOf(0, 20)], [5, 5, 5, 25, 25]);
});

test("gathering extends the target at once, and does not count as a delay of the network", () => {
  const target = new TargetDelay("low");
  target.setGathering(40);
  for (let count = 0; count < 100; count += 1) {
    target.observe(45);
  }
  target.at(0);
  assert.deepEqual([target.networkMs, target.at(20_000)], [35, 75]);
  target.setGathering(100);
  assert.equal(target.at(20_001), 135);
});

/** Returns the mean delay over some seconds, after it has settled. */
function meanDelayMs(relay) {
  relay.run(20_000);
  relay.told.length = 0;
  relay.run(5000);
  const delays = relay.told.filter(({ type }) => type === "stats").map(({ stats }) => stats.delayMs);
  return delays.reduce((sum, delay) => sum + delay, 0) / delays.length;
}

for (const codec of ["pcm_s16le", "opus"]) {
  for (const [latency, ms] of WANTED) {
    test(`${codec}, ${latency}: frames that the relay gathers are heard no later`, () => {
      const listening = (mostGathered) => {
        const decoders = [toneDecoder({ sound: tone(997, 48_000) })];
        return playing({ latency, codecs: [codec], decoders, mostGathered });
      };
      const gathered = listening(Infinity);
      assert.ok(Math.abs(meanDelayMs(gathered) - meanDelayMs(listening(0))) < 3);
      assert.deepEqual([gathered.sockets[0].coalesceMs, gathered.stats.underruns], [ms, 0]);
      assert.ok(Math.abs(gathered.stats.playoutMs - gathered.stats.targetMs) < 30);
    });
  }
}

test("a change of preset or of saving data changes the gathering without a reconnect or a break", () => {
  const relay = playing({ codecs: ["opus"], decoders: [toneDecoder({ sound: tone(997, 48_000) })] });
  const asked = () =>
    relay.received.filter(({ type }) => type === "delivery").map((one) => [one.coalesce_ms, one.packet_ms]);
  assert.deepEqual(asked(), []);
  relay.recording = [];
  relay.session.setSaveData(true);
  relay.run(3000);
  relay.session.setLatency("stable");
  relay.run(5000);
  relay.session.setLatency("low");
  relay.run(5000);
  relay.session.setSaveData(false);
  relay.run(5000);
  assert.deepEqual(asked(), [
    [40, 60],
    [100, 100],
    [0, 60],
    [0, 0],
  ]);
  assert.equal(relay.attempts.length, 1);
  assert.equal(relay.stats.underruns, 0);
  assert.ok(longestSilence(relay.recording, 48_000) < 0.001);
  assert.ok(worstBreak(relay.recording, 997, 48_000) < 0.01);
});

test("a change while a connection or a switch awaits its answer is asked for afterwards", () => {
  const connecting = new FakeRelay({ latency: "stable" });
  connecting.run(3);
  connecting.session.setLatency("low");
  connecting.run(1000);
  assert.equal(connecting.sockets[0].coalesceMs, 0);

  const switching = playing({ latency: "stable" });
  switching.session.switchChannel("de");
  switching.run(7);
  switching.session.setLatency("low");
  switching.run(1000);
  assert.equal(switching.sockets[0].coalesceMs, 0);
});

test("a relay that does not know delivery messages gets none", () => {
  const relay = playing();
  relay.knowsDelivery = false;
  relay.sockets[0].break(1006);
  relay.run(2000);
  relay.session.setLatency("stable");
  relay.run(2000);
  assert.deepEqual(
    relay.received.filter(({ type }) => type === "delivery"),
    [],
  );
});
