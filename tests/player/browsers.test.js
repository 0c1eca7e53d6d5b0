/** Runs the player as in the oldest browsers that its README names, without the later features of JavaScript. */

import assert from "node:assert/strict";
import { test } from "node:test";

const LATER = new Map([
  [Object, ["hasOwn", "groupBy"]],
  [Array.prototype, ["at", "findLast", "findLastIndex", "toReversed", "toSorted", "toSpliced", "with"]],
  [Object.getPrototypeOf(Int16Array.prototype), ["at", "findLast", "findLastIndex", "toReversed", "toSorted", "with"]],
  [String.prototype, ["at", "isWellFormed", "toWellFormed"]],
  [Promise, ["withResolvers", "try"]],
  [globalThis, ["structuredClone"]],
]);

for (const [owner, names] of LATER) {
  for (const name of names) {
    delete owner[name];
  }
}

test("the player needs nothing that came after Chrome 86 and Safari 15", async () => {
  const { playing } = await import("./support/fake-relay.js");
  playing();
  await import("./support/fake-browser.js");
  const { RelayPlayer } = await import("../../relay/pages/player/index.js");
  const player = new RelayPlayer({ session: "ev1" });
  await player.play();
  assert.equal(player.state, "connecting");
  player.dispose();
});
