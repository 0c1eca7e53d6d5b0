import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import {
  addressAt,
  ahead,
  epochAhead,
  isName,
  readFrames,
  readMessage,
  readPageAddress,
} from "../../relay/pages/player/wire.js";
import { fromHex } from "./support/hex.js";

const { headers } = JSON.parse(readFileSync(new URL("../vectors/header.json", import.meta.url), "utf8"));

for (const { name, hex, epoch, seq, media_time: mediaTime, due_ms: dueMs } of headers) {
  test(`the header "${name}" is read, as in the test vectors of all implementations`, () => {
    const message = Uint8Array.from([...fromHex(hex), 1, 0, 0xfe, 0xff]).buffer;
    const [{ audio, ...header }] = readFrames(message, false);
    assert.deepEqual(header, { epoch, seq, mediaTime, dueMs });
    assert.deepEqual([...audio], [1, 0, 0xfe, 0xff]);
  });
}

test("a message that is no frame is refused", () => {
  for (const bytes of [[], new Array(15).fill(1), [1, ...new Array(16).fill(0)], [2, ...new Array(19).fill(0)]]) {
    assert.throws(() => readFrames(Uint8Array.from(bytes).buffer, false), RangeError);
  }
});

test("numbers that wrap around are compared with serial arithmetic", () => {
  assert.equal(ahead(2, 0xffff_fffe), 4);
  assert.equal(ahead(0xffff_fffe, 2), -4);
  assert.equal(ahead(5, 2 ** 32 + 3), 2);
  assert.equal(epochAhead(0, 0xffff), 1);
  assert.equal(epochAhead(0xffff, 0), -1);
});

test("text that is no control message is read as null", () => {
  assert.equal(readMessage("no"), null);
  assert.equal(readMessage("[]"), null);
  assert.equal(readMessage('{"type": 7}'), null);
  assert.deepEqual(readMessage('{"type":"pong","id":1}'), { type: "pong", id: 1 });
});

test("addresses keep the path before /v1", () => {
  const address = { session: "ev1", channel: "de" };
  assert.equal(addressAt("wss://a.example/", "listen", address), "wss://a.example/v1/listen/ev1/de");
  assert.equal(
    addressAt("ws://a.example/relay", "listen", { ...address, channel: null }, { epoch: 1, after: 2 }),
    "ws://a.example/relay/v1/listen/ev1?epoch=1&after=2",
  );
  assert.equal(
    addressAt("https://a.example/relay/", "broadcast", address),
    "wss://a.example/relay/v1/broadcast/ev1/de",
  );
  assert.equal(addressAt("http://a.example:8080", "listen", address), "ws://a.example:8080/v1/listen/ev1/de");
});

test("a page's address names a channel after the relay's path", () => {
  for (const relay of ["https://a.example/", "https://a.example/relay/", "https://a.example/listen/broadcast/"]) {
    assert.deepEqual(readPageAddress(`${relay}listen/ev1#token=a/b`, relay), { session: "ev1", channel: null });
    assert.deepEqual(readPageAddress(`${relay}broadcast/listen/de?a=/b`, relay), { session: "listen", channel: "de" });
  }
});

test("names follow the relay's rules", () => {
  assert.deepEqual(
    ["a", "A-Z_0.9~", "", ".", "...", ".a", "a b", "ä", "a/b", "x".repeat(64), "x".repeat(65), "a\n", "%20"].filter(
      isName,
    ),
    ["a", "A-Z_0.9~", ".a", "x".repeat(64)],
  );
});
