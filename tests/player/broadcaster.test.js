/** Tests when the broadcasting page ends the session for everybody, and when it only stops. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { Broadcaster } from "../../relay/pages/broadcaster.js";
import { FakeWorker } from "./support/fake-browser.js";

const TARGET = { address: "ws://relay/v1/broadcast/ev1/main?pace=live", key: "abc-12345" };

/** Opens a source that only counts. */
const openSource = async () => ({
  node: /** @type {any} */ ({ connect: (node) => ({ ...node, connect() {} }), disconnect() {} }),
  granted: null,
  begin() {},
  close() {},
});

/** Reports a state of the latest Worker's uplink. */
function report(state, code = null) {
  FakeWorker.latest.onmessage({ data: { type: "state", state, code, told: "" } });
}

/** The types of the orders to the latest Worker. */
const orders = () => FakeWorker.latest.posted.map(({ type }) => type);

async function live() {
  const broadcaster = new Broadcaster();
  await broadcaster.start(openSource, TARGET);
  report("live");
  return broadcaster;
}

async function paused() {
  const broadcaster = await live();
  broadcaster.stop();
  report("stopped", 1000);
  assert.deepEqual([broadcaster.state, broadcaster.problem, broadcaster.paused], ["idle", { code: "paused" }, true]);
  return broadcaster;
}

beforeEach(() => {
  FakeWorker.made = [];
});

test("stop on the air is a break", async () => {
  const broadcaster = await live();
  broadcaster.stop();
  assert.deepEqual([broadcaster.state, orders()], ["stopping", ["open", "pause"]]);
});

test("a test of the microphone that ends in a break does not end the session", async () => {
  const broadcaster = await paused();
  await broadcaster.rehearse(openSource);
  assert.equal(broadcaster.state, "rehearsing");
  broadcaster.stop();
  assert.deepEqual([broadcaster.state, broadcaster.problem, broadcaster.paused], ["idle", { code: "paused" }, true]);
  assert.equal(FakeWorker.made.length, 1);
});

test("a refused key in a break does not end the session, and neither does the next key", async () => {
  const broadcaster = await paused();
  await broadcaster.start(openSource, { ...TARGET, key: "expired-12345" });
  report("stopped", 4502);
  assert.deepEqual([broadcaster.state, broadcaster.problem.code], ["failed", 4502]);
  broadcaster.stop();
  assert.deepEqual([broadcaster.state, broadcaster.problem, broadcaster.paused], ["idle", { code: "paused" }, true]);
  assert.equal(FakeWorker.made.length, 2);
});

test("a session can be ended in a break, even during a test of the microphone", async () => {
  for (const isRehearsing of [false, true]) {
    const broadcaster = await paused();
    if (isRehearsing) {
      await broadcaster.rehearse(openSource);
    }
    broadcaster.end();
    assert.deepEqual([broadcaster.state, orders()], ["stopping", ["open", "end"]]);
    report("stopped", 1000);
    assert.deepEqual(
      [broadcaster.state, broadcaster.problem, broadcaster.paused],
      ["idle", { code: "off-air" }, false],
    );
  }
});

test("an end while the connection is broken waits for the next connection, and may fail", async () => {
  for (const { code, state, problem } of [
    { code: 1000, state: "idle", problem: "off-air" },
    { code: "not-ended", state: "failed", problem: "not-ended" },
  ]) {
    const broadcaster = await live();
    report("reconnecting", 1006);
    broadcaster.end();
    assert.deepEqual([broadcaster.state, orders()], ["stopping", ["open", "end"]]);
    report("stopped", code);
    assert.deepEqual([broadcaster.state, broadcaster.problem.code], [state, problem]);
    // The page offers to end the session again.
    assert.equal(broadcaster.paused, code === "not-ended");
  }
});
