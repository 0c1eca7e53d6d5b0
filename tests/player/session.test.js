/** Runs the player without threads, from the first connection to the end, with a relay on a virtual clock. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { longestSilence, worstBreak } from "./support/ear.js";
import { FORMAT, FakeRelay, playing } from "./support/fake-relay.js";

const TONE = 997;
const DEVICE_RATE = 48_000;
const CLICK = 0.005;

test("after the click, the player connects, buffers, and plays the sound from just before", () => {
  for (const latency of /** @type {const} */ (["low", "balanced", "stable"])) {
    const relay = new FakeRelay({ latency });
    relay.run(1000);
    assert.deepEqual(relay.states, ["connecting", "buffering", "playing"]);
    const onsetMs = (relay.recording.findIndex((sample) => sample !== 0) * 1000) / DEVICE_RATE;
    assert.ok(onsetMs >= 0 && onsetMs < 200, `${latency}: ${onsetMs}`);
    assert.match(
      relay.attempts[0].address,
      /^ws:\/\/relay\/v1\/listen\/ev1\/main\?codec=pcm_s16le&coalesce_ms=\d+&burst_ms=\d+$/,
    );
    relay.run(15_000);
    assert.deepEqual([relay.stats.underruns, relay.stats.jumps], [0, 0]);
    assert.ok(Math.abs(relay.stats.playoutMs - relay.stats.targetMs) < 30, `${latency}: ${relay.stats.playoutMs}`);
  }
});

test("a token is sent as a subprotocol, and a new one with the next connection", () => {
  const relay = playing({ token: "abc-12345" });
  assert.deepEqual(relay.sockets[0].protocols, ["relay.v1", "relay.token.abc-12345"]);
  relay.session.setToken("new-12345");
  relay.sockets[0].break(4001, "The token expired.");
  relay.run(1500);
  assert.deepEqual(relay.sockets[0].protocols, ["relay.v1", "relay.token.new-12345"]);
  const [notice] = relay.told.filter(({ type }) => type === "notice");
  assert.deepEqual([notice.code, notice.message], [4001, "The token expired."]);
});

test("the player waits for a new token for 10 s at most", () => {
  const renewed = playing({ token: "old-12345" });
  renewed.sockets[0].break(4001, "The token expired.");
  renewed.run(1000);
  assert.equal(renewed.attempts.length, 1);
  const { state, code, reason } = renewed.status;
  assert.deepEqual([state, code, reason], ["reconnecting", 4001, "The token expired."]);
  renewed.session.setToken("new-12345");
  renewed.run(1000);
  assert.deepEqual(renewed.sockets[0].protocols, ["relay.v1", "relay.token.new-12345"]);
  assert.equal(renewed.attempts.length, 2);
  assert.equal(renewed.status.state, "playing");

  const forgotten = playing({ token: "old-12345" });
  forgotten.sockets[0].break(4001);
  forgotten.run(9900);
  assert.equal(forgotten.attempts.length, 1);
  forgotten.run(1100);
  assert.equal(forgotten.attempts.length, 2);
});

test("an address that the browser refuses ends the player, at the first attempt and at a later one", () => {
  const obstacle = new DOMException("The URL 'ws:// ' is invalid.", "SyntaxError");
  const relay = new FakeRelay({ obstacle });
  relay.run(10_000);
  assert.equal(relay.attempts.length, 1);
  assert.deepEqual(relay.states, ["connecting", "failed"]);
  const { code, reason } = relay.status;
  assert.deepEqual(
    [code, reason],
    ["address", "The browser refuses the relay's address: The URL 'ws:// ' is invalid."],
  );

  const later = playing();
  later.obstacle = obstacle;
  later.sockets[0].break(1006);
  later.run(10_000);
  assert.equal(later.attempts.length, 2);
  assert.equal(later.status.code, "address");
});

for (const random of [0, 0.5, 1]) {
  test(`a socket that breaks with 600 ms buffered: no gap, each sample once (retry at ${random} of the limit)`, () => {
    const relay = new FakeRelay({ latency: "stable" });
    relay.run(5000);
    relay.random = random;
    relay.recording = [];
    relay.sockets[0].break(1006);
    relay.run(5000);
    assert.equal(relay.attempts.length, 2);
    const query = new URL(relay.attempts[1].address).searchParams;
    assert.equal(query.get("epoch"), "300");
    // The relay gathers five frames in a message.
    const newest = Math.floor((6000 - 5) / 20);
    assert.ok(Number(query.get("after")) > newest - 5 && Number(query.get("after")) <= newest);
    assert.ok(Number(query.get("buffer_ms")) >= 600);
    assert.ok(longestSilence(relay.recording, DEVICE_RATE) < 0.001);
    assert.ok(worstBreak(relay.recording, TONE, DEVICE_RATE) < CLICK);
    const { underruns, jumps, gaps, reconnects } = relay.stats;
    assert.deepEqual({ underruns, jumps, gaps, reconnects }, { underruns: 0, jumps: 0, gaps: 0, reconnects: 1 });
    assert.ok(relay.states.every((state) => ["connecting", "buffering", "playing"].includes(state)));
  });
}

test("after a longer outage, the player reports it, resumes with little old sound, and skips stale sound", () => {
  const relay = playing();
  relay.isReachable = false;
  relay.sockets[0].break(1006);
  relay.run(6000);
  assert.equal(relay.states.at(-1), "reconnecting");
  assert.ok(relay.attempts.length > 3);
  const lost = relay.status;
  assert.ok(lost.retryInMs > 0);
  assert.equal(lost.code, 1006);
  relay.isReachable = true;
  relay.run(14_000);
  const { state, code, reason, retryInMs } = relay.status;
  assert.deepEqual({ state, code, reason, retryInMs }, { state: "playing", code: null, reason: "", retryInMs: null });
  const { jumps, gaps, gapMs, playoutMs, targetMs } = relay.stats;
  assert.equal(jumps, 0);
  assert.equal(gaps, 1);
  assert.ok(gapMs > 5000);
  assert.ok(Math.abs(playoutMs - targetMs) < 60);
  assert.ok(worstBreak(relay.recording.slice(0.5 * DEVICE_RATE), TONE, DEVICE_RATE) < CLICK);
});

test("before the first greeting, no connection counts as lost, and a third failure names a possible cause", () => {
  const relay = new FakeRelay({ isReachable: false });
  relay.run(20_000);
  assert.ok(relay.attempts.length > 4);
  assert.deepEqual(new Set(relay.states), new Set(["connecting"]));
  const codes = relay.told.filter(({ type }) => type === "status").map(({ code }) => code);
  assert.deepEqual(codes.slice(0, 5), [null, 1006, 1006, "unreachable", "unreachable"]);
  assert.match(relay.status.reason, /WebSockets.*allowed_origins.*connect-src/);
  assert.ok(relay.status.retryInMs > 0);
  relay.isReachable = true;
  relay.run(12_000);
  assert.deepEqual([relay.status.state, relay.status.code, relay.status.reason], ["playing", null, ""]);
});

test("a relay that closes each connection counts as reachable", () => {
  const relay = new FakeRelay();
  relay.isSilent = true;
  relay.random = 0;
  for (const code of [1013, 1006, 1006, 1006, 1006]) {
    relay.sockets[0].break(code, code === 1013 ? "Later." : "");
    const { state, code: told } = relay.status;
    assert.deepEqual([state, told], ["connecting", code]);
    relay.run(1);
  }
});

test("a connection that opens and stays silent counts as a failed attempt", () => {
  const relay = new FakeRelay();
  relay.isSilent = true;
  relay.run(40_000);
  assert.deepEqual([relay.status.state, relay.status.code], ["connecting", "unreachable"]);
});

test("an error event without a close event counts as a failed attempt at once", () => {
  const relay = new FakeRelay();
  relay.isSilent = true;
  relay.random = 0;
  for (const code of [1006, 1006, "unreachable"]) {
    relay.sockets[0].fail();
    relay.run(1);
    assert.equal(relay.status.code, code);
  }
  assert.equal(relay.attempts.length, 4);
});

test("attempts are spread with full jitter, up to 10 s", () => {
  const relay = playing();
  relay.isReachable = false;
  relay.random = 1;
  relay.attempts = [];
  relay.sockets[0].break(1006);
  relay.run(40_000);
  const times = relay.attempts.map(({ now }) => now);
  const waits = times.slice(1).map((time, i) => Math.round((time - times[i] - 5) / 100) * 100);
  assert.deepEqual(waits, [2000, 4000, 8000, 10_000, 10_000]);
});

test("the player leaves a relay that has been silent for 6 s", () => {
  const relay = playing();
  relay.isSilent = true;
  relay.run(4500);
  assert.equal(relay.attempts.length, 1);
  relay.run(4500);
  assert.equal(relay.attempts.length, 2);
});

test("the player pings every 2 s, and reports its figures every 5 s", () => {
  const relay = playing();
  relay.run(20_000);
  const pings = relay.received.filter(({ type }) => type === "ping");
  assert.ok(pings.length >= 11 && pings.length <= 13, `${pings.length}`);
  const reports = relay.received.filter(({ type }) => type === "stats");
  assert.ok(reports.length >= 4);
  const { buffer_ms: buffer, underruns, playout_ms: playout, jumps } = reports.at(-1);
  assert.ok(Number.isInteger(buffer) && buffer > 100 && buffer < 300);
  assert.ok(Number.isInteger(playout) && playout > 150 && playout < 250);
  assert.deepEqual([underruns, jumps], [0, 0]);
});

for (const code of [1000, 1008, 4500, 4501, 4502, 4504]) {
  test(`close ${code} is final`, () => {
    const relay = playing();
    relay.sockets[0].tell(JSON.stringify({ type: "error", code, message: "The sentence." }));
    relay.run(10);
    relay.sockets[0].break(code, "");
    relay.run(10_000);
    assert.equal(relay.attempts.length, 1);
    const { state, reason, code: told } = relay.status;
    assert.deepEqual([state, reason, told], [code === 1000 ? "ended" : "failed", "The sentence.", code]);
  });
}

test("an earlier error that did not cause the close does not explain it", () => {
  const relay = playing();
  relay.session.switchChannel("xx");
  relay.run(1000);
  relay.sockets[0].break(4501);
  relay.run(100);
  const { code, reason } = relay.status;
  assert.deepEqual([code, reason], [4501, "The operator of the relay closed this connection."]);
});

test("the player plays a session to its end", () => {
  const relay = playing({ latency: "stable" });
  relay.recording = [];
  relay.sockets[0].break(1000);
  relay.run(400);
  assert.equal(relay.states.at(-1), "playing");
  relay.run(600);
  assert.equal(relay.states.at(-1), "ended");
  const heard = relay.recording.filter((sample) => sample !== 0).length / DEVICE_RATE;
  assert.ok(heard > 0.5, `${heard}`);
});

/** Ends the session right after `seconds` of its sound have arrived at once. */
function endAfterSpeech(relay, seconds, beforeEnd = () => {}) {
  relay.state = "waiting";
  relay.epoch += 1;
  const [socket] = relay.sockets;
  const hello = { type: "hello", channel: "main", state: "live", pace: "speech", format: FORMAT, epoch: relay.epoch };
  socket.tell(JSON.stringify({ ...hello, next_seq: 0, clock_ms: relay.now, resumed: false }));
  for (let seq = 0; seq < 50 * seconds; seq += 1) {
    const message = new ArrayBuffer(16 + 640);
    const header = new DataView(message);
    header.setUint8(0, 1);
    header.setUint16(2, relay.epoch);
    header.setUint32(4, seq);
    header.setUint32(8, 320 * seq);
    header.setUint32(12, relay.now + 20 * seq);
    new Int16Array(message, 16).fill(10_000);
    socket.tell(message);
  }
  socket.tell(JSON.stringify({ type: "state", state: "ended", pace: "speech" }));
  relay.run(10);
  relay.recording = [];
  beforeEnd();
  socket.break(1000);
}

test("all speech that arrived before the end of its session is played", () => {
  const relay = playing();
  endAfterSpeech(relay, 12);
  relay.run(11_000);
  assert.notEqual(relay.status.state, "ended");
  relay.run(2000);
  assert.equal(relay.status.state, "ended");
  const heard = relay.recording.filter((sample) => sample !== 0).length / DEVICE_RATE;
  assert.ok(heard > 11.9, `${heard}`);
});

test("a switch that the end of the session left without an answer opens no connection", () => {
  const relay = playing();
  endAfterSpeech(relay, 6, () => relay.session.switchChannel("de"));
  relay.run(8000);
  assert.deepEqual([relay.attempts.length, relay.status.state], [1, "ended"]);
});

test("after the end of a session, the player waits 5 s for an audio thread that stands still", () => {
  const relay = playing();
  endAfterSpeech(relay, 12);
  relay.run(7000);
  relay.standsStill = true;
  relay.run(4800);
  assert.notEqual(relay.status.state, "ended");
  relay.run(400);
  assert.equal(relay.status.state, "ended");
});

for (const code of [1006, 1011, 1012, 1013, 4000]) {
  test(`the player connects again after close ${code}`, () => {
    const relay = playing();
    relay.sockets[0].break(code);
    relay.run(2000);
    assert.equal(relay.attempts.length, 2);
    assert.equal(relay.states.at(-1), "playing");
  });
}

test("the player obeys a goaway", () => {
  const relay = playing();
  relay.sockets[0].tell(JSON.stringify({ type: "goaway", reconnect_after_ms: 3000 }));
  relay.run(100);
  const closedAt = relay.now;
  relay.sockets[0].break(1012);
  relay.run(6000);
  assert.equal(relay.attempts[1].now - closedAt, 3500);
});

test("the player reports the channels of the session", () => {
  const relay = playing();
  assert.deepEqual(relay.told.find(({ type }) => type === "channels").channels, relay.channels);
  relay.sockets[0].tell(JSON.stringify({ type: "channels", channels: [relay.channels[0]] }));
  relay.run(100);
  assert.equal(relay.told.filter(({ type }) => type === "channels").at(-1).channels.length, 1);
});

test("the player waits for a broadcaster that has left", () => {
  const relay = playing();
  relay.state = "source_lost";
  relay.sockets[0].tell(JSON.stringify({ type: "state", state: "source_lost" }));
  relay.run(1000);
  assert.equal(relay.states.at(-1), "waiting");
  assert.equal(relay.stats.underruns, 0);
  relay.state = "live";
  relay.sockets[0].tell(JSON.stringify({ type: "state", state: "live" }));
  relay.run(1000);
  assert.equal(relay.states.at(-1), "playing");
});

test("the cause of silence is reported when it changes, and after a reconnect", () => {
  const relay = playing();
  const silences = () => relay.told.filter(({ type }) => type === "silence").map(({ silence }) => silence);
  const tell = (state, silence) => {
    relay.state = state;
    relay.silence = silence;
    relay.sockets[0].tell(JSON.stringify({ type: "state", state, silence }));
    relay.run(1000);
  };
  tell("live", "muted");
  assert.equal(relay.states.at(-1), "playing");
  tell("live", "muted");
  tell("live", "asleep");
  tell("waiting", "paused");
  assert.equal(relay.states.at(-1), "waiting");
  relay.sockets[0].break(1006);
  relay.run(2000);
  assert.deepEqual(silences(), ["muted", null, "paused"]);
  relay.silence = "muted";
  relay.state = "live";
  relay.sockets[0].break(1006);
  relay.run(3000);
  assert.deepEqual([relay.states.at(-1), ...silences().slice(3)], ["playing", "muted"]);
  tell("live", undefined);
  assert.equal(silences().at(-1), null);
});

test("playback starts anew with a relay that restarted", () => {
  const relay = playing();
  relay.epoch = 77;
  relay.sockets[0].break(1006);
  relay.run(3000);
  assert.equal(relay.states.at(-1), "playing");
  assert.equal(relay.stats.jumps, 0);
});

test("a context that stood still resumes at the target, without an audible jump", () => {
  const relay = playing();
  relay.session.setRunning(false);
  relay.run(20_000);
  relay.session.setRunning(true);
  relay.run(1000);
  assert.equal(relay.states.at(-1), "playing");
  const { jumps, playoutMs, targetMs } = relay.stats;
  assert.equal(jumps, 0);
  assert.ok(Math.abs(playoutMs - targetMs) < 60, `${playoutMs}`);
});

test("a frame that comes twice is heard once", () => {
  const relay = playing();
  relay.run(1000);
  const before = relay.stats.bufferMs;
  relay.recording = [];
  const deliver = relay.sockets[0].tell;
  relay.sockets[0].tell = function tell(data) {
    deliver.call(this, data);
    deliver.call(this, data instanceof ArrayBuffer ? data.slice(0) : data);
  };
  relay.run(2000);
  assert.ok(Math.abs(relay.stats.bufferMs - before) < 40);
  assert.ok(worstBreak(relay.recording, TONE, DEVICE_RATE) < CLICK);
  assert.equal(relay.stats.gaps, 0);
});

test("a second report that the context runs changes nothing", () => {
  const relay = playing();
  relay.recording = [];
  relay.session.setRunning(true);
  relay.run(1000);
  assert.ok(longestSilence(relay.recording, DEVICE_RATE) < 0.001);
  assert.ok(worstBreak(relay.recording, TONE, DEVICE_RATE) < CLICK);
});

test("an invalid audio message or an unknown codec fails with a sentence", () => {
  const relay = playing();
  relay.sockets[0].tell(new ArrayBuffer(3));
  relay.run(100);
  assert.deepEqual([relay.status.state, relay.status.code], ["failed", "protocol"]);
  const other = playing();
  other.sockets[0].tell(
    JSON.stringify({ type: "format", epoch: 301, format: { codec: "flac", rate: 48_000, channels: 1 } }),
  );
  other.run(100);
  assert.equal(other.status.code, "codec");
  assert.match(other.status.reason, /flac/);
});

test("a session that ended is not reported as waiting, even if the close comes late", () => {
  const relay = playing();
  relay.isSilent = true;
  relay.state = "ended";
  relay.sockets[0].tell(JSON.stringify({ type: "state", state: "ended" }));
  relay.run(3000);
  assert.ok(!relay.states.includes("waiting"), `${relay.states}`);
  relay.sockets[0].break(1000, "The session ended.");
  relay.run(1000);
  assert.deepEqual([relay.status.state, relay.status.code], ["ended", 1000]);
});

for (const code of [1006, 1012]) {
  test(`a session has ended even if close ${code} is the last that the player hears of the relay`, () => {
    const relay = playing({ latency: "stable" });
    relay.sockets[0].tell(JSON.stringify({ type: "state", state: "ended" }));
    relay.run(10);
    relay.sockets[0].break(code);
    relay.run(10_000);
    assert.equal(relay.attempts.length, 1);
    assert.ok(!relay.states.includes("reconnecting"), `${relay.states}`);
    assert.deepEqual([relay.status.state, relay.status.reason], ["ended", "The session has ended."]);
  });
}
