/** Tests the player on the page: its requests to the Worker and the browser, and its reports to the page. */

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { RelayPlayer } from "../../relay/pages/player/index.js";
import { FakeAudio, FakeContext, FakeWorker } from "./support/fake-browser.js";

let player = null;

/** Creates a player, and returns a list that receives its state changes. */
function makePlayer(options = {}) {
  player?.dispose();
  player = new RelayPlayer({ session: "ev1", ...options });
  const told = [];
  player.addEventListener("statechange", ({ detail }) => told.push(detail));
  return told;
}

function status(state, { reason = "", code = null, retryInMs = null } = {}) {
  return { type: "status", state, reason, code, retryInMs };
}

afterEach(() => {
  FakeContext.obstacle = null;
  FakeAudio.obstacle = null;
  FakeAudio.canPlay = "maybe";
  player?.dispose();
});

test("a token that cannot be sent is refused, in the constructor and later", () => {
  for (const token of ["abc-12345=", "abc-12345)", "short", "", "a b c d e f"]) {
    assert.throws(() => makePlayer({ token }), TypeError);
    makePlayer({ token: null });
    assert.throws(() => {
      player.token = token;
    }, TypeError);
  }
  makePlayer({ token: "abc-12345" });
  player.token = null;
  player.token = "new-12345";
  player.play();
  assert.equal(FakeWorker.latest.request.token, "new-12345");
});

test("a state change has a reason in words and a code", () => {
  const told = makePlayer();
  player.play();
  FakeWorker.latest.tell(status("reconnecting", { reason: "Gone.", code: 1006, retryInMs: 300 }));
  FakeWorker.latest.tell(status("playing"));
  FakeWorker.latest.tell(status("failed", { reason: "No.", code: 4501 }));
  assert.deepEqual(told, [
    { state: "connecting", previous: "idle", reason: "", code: null, retryInMs: null },
    { state: "reconnecting", previous: "connecting", reason: "Gone.", code: 1006, retryInMs: 300 },
    { state: "playing", previous: "reconnecting", reason: "", code: null, retryInMs: null },
    { state: "failed", previous: "playing", reason: "No.", code: 4501, retryInMs: null },
  ]);
  assert.deepEqual([player.state, player.reason, player.code], ["failed", "No.", 4501]);
});

test("the player knows the cause of silence while it plays", () => {
  makePlayer();
  const told = [];
  player.addEventListener("silence", ({ detail }) => told.push(detail.silence));
  player.play();
  assert.equal(player.silence, null);
  FakeWorker.latest.tell({ type: "silence", silence: "muted" });
  assert.deepEqual([player.silence, told], ["muted", ["muted"]]);
  FakeWorker.latest.tell(status("ended", { code: 1000 }));
  assert.equal(player.silence, null);
});

test("each failed attempt before the first connection is reported, with a possible cause", () => {
  const told = makePlayer();
  player.play();
  FakeWorker.latest.tell(status("connecting", { code: 1006, retryInMs: 200 }));
  FakeWorker.latest.tell(status("connecting", { reason: "Perhaps.", code: "unreachable", retryInMs: 900 }));
  assert.deepEqual(
    told.map(({ state, code, retryInMs }) => [state, code, retryInMs]),
    [
      ["connecting", null, null],
      ["connecting", 1006, 200],
      ["connecting", "unreachable", 900],
    ],
  );
  assert.deepEqual([player.reason, player.code], ["Perhaps.", "unreachable"]);
});

test("a Worker that fails to load is terminated, and the next start creates another one", async () => {
  makePlayer();
  await player.play();
  const worker = FakeWorker.latest;
  worker.onerror();
  assert.ok(worker.isTerminated);
  assert.deepEqual([player.state, player.code], ["failed", "not-loaded"]);
  await player.play();
  assert.notEqual(FakeWorker.latest, worker);
  worker.onerror?.();
  assert.equal(player.state, "connecting");
});

test("if the browser refuses a context, the start fails and the Worker stops", async () => {
  const told = makePlayer();
  FakeContext.obstacle = new Error("There are no more of them.");
  await player.play();
  assert.deepEqual(
    told.map(({ state }) => state),
    ["failed"],
  );
  assert.deepEqual([player.code, player.context], ["not-loaded", null]);
  assert.equal(FakeWorker.latest.posted.at(-1).type, "stop");
  FakeContext.obstacle = null;
  await player.play();
  assert.equal(player.state, "connecting");
});

test("the next start plays a chosen channel that was not played yet", () => {
  for (const end of [() => player.stop(), () => FakeWorker.latest.tell(status("failed", { code: 4501 }))]) {
    makePlayer();
    player.play();
    FakeWorker.latest.tell({ type: "channel", channel: "main" });
    player.switchChannel("de");
    assert.equal(player.channel, "main");
    end();
    assert.equal(player.channel, "de");
    player.play();
    assert.equal(FakeWorker.latest.request.channel, "de");
  }
});

test("the next start does not play a channel that the relay refused", () => {
  makePlayer();
  player.play();
  FakeWorker.latest.tell({ type: "channel", channel: "main" });
  player.switchChannel("xx");
  FakeWorker.latest.tell({ type: "channel", channel: "main" });
  player.stop();
  player.play();
  assert.equal(FakeWorker.latest.request.channel, "main");
});

test("play during an interruption creates a context within the click, and the old one gets no sound", async () => {
  makePlayer();
  await player.play();
  const [worker, old] = [FakeWorker.latest, FakeContext.latest];
  old.enter("interrupted");
  assert.equal(player.state, "interrupted");
  worker.posted = worker.posted.filter(({ type }) => type === "play");
  const again = player.play();
  assert.notEqual(FakeContext.latest, old);
  FakeContext.latest.enter("running");
  await again;
  assert.equal(player.state, "connecting");
  const posted = worker.posted.filter(({ type }) => type === "port" || type === "running");
  assert.deepEqual(posted[0], { type: "port", port: null });
  assert.ok(posted.slice(1).some(({ port }) => port instanceof MessagePort));
});

test("the lock screen shows the channel's name as soon as it is known", async () => {
  makePlayer();
  await player.play();
  FakeWorker.latest.tell({ type: "channel", channel: "de" });
  FakeWorker.latest.tell({ type: "channels", channels: [{ id: "de", name: "Deutsch", lang: "de", state: "live" }] });
  assert.equal(navigator.mediaSession.metadata.title, "Deutsch");
});

/** Creates a player whose third attempt has failed, and returns its state changes. */
function unreachable(options) {
  const told = makePlayer({ url: "wss://relay.example/at", ...options });
  player.play();
  for (const code of [1006, 1006, "unreachable"]) {
    FakeWorker.latest.tell(status("connecting", { code, retryInMs: 500 }));
  }
  return told;
}

test("after three failed WebSockets, the player plays an HTTP stream and reports that it is late", () => {
  const told = unreachable({ channel: "de", token: "abc-12345", volume: 0.5 });
  const audio = FakeAudio.latest;
  assert.equal(audio.src, "https://relay.example/at/stream/ev1/de.opus?token=abc-12345");
  audio.dispatchEvent(new Event("waiting"));
  assert.deepEqual([audio.isPaused, audio.volume, player.state], [false, 0.5, "connecting"]);
  audio.dispatchEvent(new Event("playing"));
  assert.deepEqual([player.state, player.code], ["playing", "http"]);
  assert.match(told.at(-1).reason, /several seconds late/);
  const news = told.length;
  FakeWorker.latest.tell(status("connecting", { code: "unreachable", retryInMs: 900 }));
  assert.equal(told.length, news);
  assert.equal(FakeAudio.latest, audio);
  audio.dispatchEvent(new Event("waiting"));
  assert.equal(player.state, "rebuffering");
  player.volume = 0.25;
  assert.equal(audio.volume, 0.25);
  player.stop();
  assert.deepEqual([audio.isPaused, audio.src, player.state], [true, "", "idle"]);
});

test("the HTTP stream changes to another channel with the next attempt", () => {
  unreachable({ channel: "de" });
  const audio = FakeAudio.latest;
  player.switchChannel("fr");
  FakeWorker.latest.tell(status("connecting", { code: "unreachable", retryInMs: 900 }));
  assert.deepEqual([audio.isPaused, audio.src], [true, ""]);
  assert.match(FakeAudio.latest.src, /\/stream\/ev1\/fr\.opus$/);
});

test("a WebSocket that connects after all replaces the HTTP stream", () => {
  const told = unreachable();
  const audio = FakeAudio.latest;
  audio.dispatchEvent(new Event("playing"));
  FakeWorker.latest.tell(status("buffering"));
  FakeWorker.latest.tell(status("playing"));
  assert.deepEqual([audio.isPaused, player.state, player.code], [true, "playing", null]);
  audio.dispatchEvent(new Event("playing"));
  assert.deepEqual(
    told.slice(-3).map(({ state, code }) => [state, code]),
    [
      ["playing", "http"],
      ["buffering", null],
      ["playing", null],
    ],
  );
});

test("an HTTP stream that fails is tried again with the next attempt, and a blocked one needs a click", async () => {
  FakeAudio.canPlay = "";
  unreachable();
  const failed = FakeAudio.latest;
  assert.match(failed.src, /\/stream\/ev1\/main\.mp3$/);
  failed.dispatchEvent(new Event("error"));
  assert.deepEqual([player.state, player.code], ["connecting", "unreachable"]);
  FakeAudio.obstacle = new DOMException("A click, please.", "NotAllowedError");
  FakeWorker.latest.tell(status("connecting", { code: "unreachable", retryInMs: 900 }));
  const blocked = FakeAudio.latest;
  assert.notEqual(blocked, failed);
  await undefined;
  await undefined;
  assert.equal(player.state, "blocked");
  FakeAudio.obstacle = null;
  player.play();
  blocked.dispatchEvent(new Event("playing"));
  assert.equal(player.state, "playing");
});

test("the player saves data if the browser's user wants it, unless the page decides otherwise", () => {
  makePlayer();
  player.play();
  assert.equal(FakeWorker.latest.request.saveData, false);
  Object.assign(navigator, { connection: { saveData: true } });
  makePlayer();
  player.play();
  assert.equal(FakeWorker.latest.request.saveData, true);
  player.saveData = false;
  assert.deepEqual(FakeWorker.latest.posted.at(-1), { type: "save-data", isOn: false });
  player.saveData = null;
  assert.deepEqual(FakeWorker.latest.posted.at(-1), { type: "save-data", isOn: true });
  Reflect.deleteProperty(navigator, "connection");
});
