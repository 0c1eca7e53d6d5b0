/** Tests switches to another channel, and what can happen before the relay answers, on a virtual clock. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { worstBreak } from "./support/ear.js";
import { FakeRelay, playing } from "./support/fake-relay.js";

const TONE = 997;
const DEVICE_RATE = 48_000;
const CLICK = 0.005;

const switches = (relay) => relay.received.filter(({ type }) => type === "switch");

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
  assert.equal(switches(relay).length, 1);
});

test("a switch that fails after it was taken back is not reported", () => {
  const relay = playing();
  relay.session.switchChannel("xx");
  relay.session.switchChannel("main");
  relay.run(1000);
  assert.equal(relay.told.filter(({ type }) => type === "notice").length, 0);
  assert.equal(switches(relay).length, 1);
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

/** Chooses channels in turn, as a held arrow key does, and last the channel `fr`. */
function holdArrowKey(relay, seconds) {
  const names = ["de", "main", "fr"];
  relay.channels.push({ id: "fr", name: "Français", lang: "fr", state: "live" });
  for (let i = 0; i < 30 * seconds; i += 1) {
    relay.session.switchChannel(names[i % names.length]);
    relay.run(1000 / 30);
  }
}

/** Returns the shortest time between two of these messages or attempts. */
const shortest = (them) => Math.min(...them.slice(1).map(({ now }, i) => now - them[i].now));

test("a held arrow key switches no more often than a relay allows, and the last choice counts", () => {
  const relay = playing();
  holdArrowKey(relay, 3);
  relay.run(1000);
  const sent = switches(relay);
  assert.ok(sent.length >= 8 && sent.length <= 17, `${sent.length}`);
  assert.ok(shortest(sent) >= 200, `${shortest(sent)}`);
  assert.equal(relay.sockets[0].channel, "fr");
  assert.equal(relay.told.filter(({ type }) => type === "channel").at(-1).channel, "fr");
  assert.deepEqual([relay.attempts.length, relay.states.at(-1)], [1, "playing"]);
});

test("only one switch is unanswered at a time", () => {
  const relay = playing();
  const { receive } = relay;
  relay.receive = (socket, message) => relay.after(500, () => receive.call(relay, socket, message));
  holdArrowKey(relay, 3);
  const sent = switches(relay);
  assert.ok(sent.length >= 4 && shortest(sent) >= 500, `${sent.length} ${shortest(sent)}`);
});

test("a choice that is taken back before it is sent sends nothing", () => {
  const relay = playing();
  relay.session.switchChannel("de");
  relay.run(50);
  relay.session.switchChannel("main");
  relay.session.switchChannel("de");
  relay.run(1000);
  assert.deepEqual(
    switches(relay).map(({ channel }) => channel),
    ["de"],
  );
});

test("choices while the first connection opens open no other, and the last one counts", () => {
  const relay = new FakeRelay();
  relay.isSilent = true;
  holdArrowKey(relay, 1);
  relay.isSilent = false;
  assert.equal(relay.attempts.length, 1);
  relay.run(10_000);
  assert.equal(relay.attempts.length, 2);
  assert.match(relay.attempts[1].address, /\/ev1\/fr\?/);

  const quick = new FakeRelay();
  quick.run(3);
  quick.session.switchChannel("de");
  quick.run(1000);
  assert.deepEqual([quick.attempts.length, quick.sockets[0].channel], [1, "de"]);
  assert.deepEqual(
    quick.told.filter(({ type }) => type === "channel").map(({ channel }) => channel),
    ["de"],
  );
});

test("choices between two attempts hasten the next one, but not without end", () => {
  const relay = playing();
  relay.isReachable = false;
  relay.random = 1;
  relay.attempts = [];
  relay.sockets[0].break(1006);
  relay.run(100);
  relay.session.switchChannel("de");
  assert.equal(relay.attempts.length, 1);
  holdArrowKey(relay, 3);
  assert.ok(shortest(relay.attempts) >= 200, `${shortest(relay.attempts)}`);
  relay.run(1000);
  const hastened = relay.attempts.length;
  // The waits have grown with each attempt.
  relay.run(8000);
  assert.equal(relay.attempts.length, hastened);
  relay.run(1500);
  assert.equal(relay.attempts.length, hastened + 1);
  assert.match(relay.attempts.at(-1).address, /\/ev1\/fr\?/);
});

test("a refusal of a channel that is no longer chosen does not end the player", () => {
  const relay = new FakeRelay({ channel: "xx" });
  relay.run(3);
  relay.session.switchChannel("de");
  relay.sockets[0].break(4504);
  relay.run(2000);
  assert.deepEqual([relay.attempts.length, relay.sockets[0].channel, relay.states.at(-1)], [2, "de", "playing"]);

  const removed = playing();
  removed.session.switchChannel("de");
  removed.session.switchChannel("main");
  removed.sockets[0].break(4501);
  removed.run(2000);
  assert.deepEqual([removed.attempts.length, removed.status.state], [1, "failed"]);
});
