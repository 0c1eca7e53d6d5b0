/** Tests switches to another channel, and what can happen before the relay answers, on a virtual clock. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { worstBreak } from "./support/ear.js";
import { playing } from "./support/fake-relay.js";

const TONE = 997;
const DEVICE_RATE = 48_000;
const CLICK = 0.005;

test("a switch needs no new connection and makes no click", () => {
  const relay = playing();
  relay.recording = [];
  relay.session.switchChannel("de");
  relay.run(4000);
  assert.equal(relay.attempts.length, 1);
  assert.deepEqual(
    relay.told.filter(({ type }) => type === "channel").map(({ channel }) => channel),
    ["main", "de"],
  );
  assert.equal(relay.states.at(-1), "playing");
  assert.ok(worstBreak(relay.recording, TONE, DEVICE_RATE) < CLICK);
  assert.equal(relay.stats.reconnects, 0);
  relay.sockets[0].break(1006);
  relay.run(2000);
  assert.match(relay.attempts[1].address, /\/ev1\/de\?.*after=/);
});

test("a switch that fails changes nothing", () => {
  const relay = playing();
  relay.session.switchChannel("xx");
  relay.run(1000);
  assert.equal(relay.states.at(-1), "playing");
  assert.equal(relay.told.filter(({ type }) => type === "channel").at(-1).channel, "main");
  assert.equal(relay.told.filter(({ type }) => type === "notice").at(-1).message, "There is no channel xx.");
});

test("the last of two quick switches counts, even if the first one fails or the connection breaks", () => {
  for (const { first, second, breaksAfterMs } of [
    { first: "de", second: "fr", breaksAfterMs: null },
    { first: "xx", second: "fr", breaksAfterMs: null },
    { first: "de", second: "fr", breaksAfterMs: 11 },
  ]) {
    const relay = playing();
    relay.channels.push({ id: "fr", name: "Français", lang: "fr", state: "live" });
    relay.session.switchChannel(first);
    relay.run(4);
    relay.session.switchChannel(second);
    if (breaksAfterMs !== null) {
      relay.run(breaksAfterMs - 4);
      relay.sockets[0].break(1006);
    }
    relay.run(3000);
    assert.deepEqual(
      relay.told.filter(({ type }) => type === "channel").map(({ channel }) => channel),
      ["main", "fr"],
    );
    assert.equal(relay.told.filter(({ type }) => type === "notice").length, 0);
    assert.equal(relay.sockets[0].channel, "fr");
    assert.equal(relay.stats.reconnects, breaksAfterMs === null ? 0 : 1);
    assert.equal(relay.states.at(-1), "playing");
  }
});

test("when the second of two quick switches fails, the first one counts", () => {
  const relay = playing();
  relay.session.switchChannel("de");
  relay.session.switchChannel("xx");
  relay.run(1000);
  assert.equal(relay.told.filter(({ type }) => type === "channel").at(-1).channel, "de");
  assert.equal(relay.sockets[0].channel, "de");
});

test("a switch after the end opens no connection", () => {
  const stopped = playing();
  stopped.session.stop();
  const ended = playing({ latency: "stable" });
  ended.sockets[0].break(1000);
  const failed = playing();
  failed.sockets[0].break(4501);
  for (const relay of [stopped, ended, failed]) {
    relay.run(100);
    relay.session.switchChannel("de");
    relay.run(5000);
    assert.equal(relay.attempts.length, 1);
  }
  assert.equal(ended.states.at(-1), "ended");
});

test("the player opens a new connection if the relay does not know switches", () => {
  const relay = playing();
  relay.receive = () => {};
  relay.session.switchChannel("de");
  relay.run(4000);
  assert.match(relay.attempts[1].address, /\/ev1\/de\?/);
});

test("a switch while the player waits for a token does not connect with the old token", () => {
  const relay = playing({ token: "old-12345" });
  relay.sockets[0].break(4001);
  relay.run(100);
  relay.session.switchChannel("de");
  relay.run(1000);
  assert.equal(relay.attempts.length, 1);
  relay.session.setToken("new-12345");
  // While the connection with the new token is opening, a switch counts as usual.
  relay.run(3);
  relay.session.switchChannel("main");
  relay.run(1000);
  assert.match(relay.attempts[1].address, /\/ev1\/de\?/);
  assert.equal(relay.sockets[0].channel, "main");
});
