// Runs a timer every 10 ms and reports late ticks. A late tick shows that the machine was busy, not the player.
const BEAT_MS = 10;
const LATE_MS = 10;

let expected = performance.now() + BEAT_MS;

function beat() {
  const now = performance.now();
  if (now - expected > LATE_MS) {
    postMessage([(performance.timeOrigin + expected) / 1000, (now - expected) / 1000]);
  }
  expected = now + BEAT_MS;
  setTimeout(beat, BEAT_MS);
}

setTimeout(beat, BEAT_MS);
