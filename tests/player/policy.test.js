/** Tests when the player connects again, when it gives up, and which state it shows. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { goawayDelayMs, retryDelayMs } from "../../relay/pages/player/backoff.js";
import { closeSentence, isFinal } from "../../relay/pages/player/close-codes.js";
import { statusOf } from "../../relay/pages/player/status.js";

test("some close codes are final", () => {
  const codes = [
    ...Array.from({ length: 16 }, (_, i) => 1000 + i),
    3000,
    4000,
    4001,
    4499,
    4500,
    4501,
    4502,
    4503,
    4504,
    4999,
  ];
  assert.deepEqual(codes.filter(isFinal), [1000, 1002, 1003, 1007, 1008, 1009, 4500, 4501, 4502, 4503, 4504, 4999]);
});

test("every close code has a sentence, and the relay's own sentence takes precedence", () => {
  assert.equal(closeSentence(4504, "buffer_ms must be a number."), "buffer_ms must be a number.");
  assert.match(closeSentence(4501, ""), /operator/);
  assert.match(closeSentence(4999, ""), /4999/);
});

test("retries are spread evenly below a limit that doubles", () => {
  const bounds = [0, 1, 2, 3, 4, 50].map((attempt) => retryDelayMs(attempt, 1));
  assert.deepEqual(bounds, [1000, 2000, 4000, 8000, 10_000, 10_000]);
  assert.equal(retryDelayMs(3, 0), 0);
  assert.equal(retryDelayMs(3, 0.5), 4000);
});

test("the first retry comes while there is sound left, but not at the same time for all listeners", () => {
  assert.equal(retryDelayMs(0, 1, 600), 300);
  assert.equal(retryDelayMs(0, 1, 1200), 600);
  assert.equal(retryDelayMs(0, 1, 60), 300);
  assert.equal(retryDelayMs(0, 1, 5000), 1000);
  assert.equal(retryDelayMs(1, 1, 600), 2000);
});

test("after a goaway, players wait as long as it says, and spread", () => {
  assert.equal(goawayDelayMs(2500, 0), 2500);
  assert.equal(goawayDelayMs(2500, 1), 3500);
  assert.equal(goawayDelayMs(-1, 0), 0);
});

test("the state describes the sound before the connection", () => {
  /** @type {Parameters<typeof statusOf>[0]} */
  const facts = { link: "down", mode: "playing", channelState: "live", hasPlayed: true, isPausing: false };
  assert.equal(statusOf(facts), "playing");
  assert.equal(statusOf({ ...facts, mode: "concealing" }), "concealing");
  assert.equal(statusOf({ ...facts, mode: "silent" }), "reconnecting");
  assert.equal(statusOf({ ...facts, mode: "silent", link: "connecting" }), "connecting");
  /** @type {Parameters<typeof statusOf>[0]} */
  const up = { ...facts, mode: "silent", link: "up" };
  assert.equal(statusOf(up), "rebuffering");
  assert.equal(statusOf({ ...up, hasPlayed: false }), "buffering");
  assert.equal(statusOf({ ...up, channelState: "source_lost" }), "waiting");
  assert.equal(statusOf({ ...up, isPausing: true }), "playing");
});
