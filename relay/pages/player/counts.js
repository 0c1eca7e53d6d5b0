/**
 * Counts underruns, jumps, concealed sound and gaps since the start. Pure.
 */

export class Counts {
  #numbers = { underruns: 0, jumps: 0, jumpedMs: 0, concealedMs: 0, gaps: 0, gapMs: 0 };
  #reported = { underruns: 0, concealedSeconds: 0, lostSeconds: 0 };
  #toldMs = 0;

  get numbers() {
    return { ...this.#numbers };
  }

  /** @param {import("./messages.js").Report} report */
  noteReport({ underruns, concealedSeconds, lostSeconds }) {
    // A new audio thread counts from zero, so a count can fall.
    this.#numbers.underruns += Math.max(0, underruns - this.#reported.underruns);
    this.#numbers.concealedMs += 1000 * Math.max(0, concealedSeconds - this.#reported.concealedSeconds);
    this.#numbers.gapMs += 1000 * Math.max(0, lostSeconds - this.#reported.lostSeconds);
    this.#reported = { underruns, concealedSeconds, lostSeconds };
  }

  noteUnderrun() {
    this.#numbers.underruns += 1;
  }

  /** @param {number} byMs */
  noteJump(byMs) {
    this.#numbers.jumps += 1;
    this.#numbers.jumpedMs += byMs;
  }

  /**
   * Counts a `gap` message of the relay. Sound that a `clear` removed is not lost.
   *
   * @param {import("./messages.js").Gap} gap
   */
  noteGap({ duration_ms: durationMs, reason }) {
    this.#toldMs += durationMs;
    if (reason !== "clear") {
      this.#lose(durationMs);
    }
  }

  /**
   * Counts missing sound before a frame. The part that no `gap` message announced was lost with a connection.
   *
   * @param {number} holeMs
   */
  noteHole(holeMs) {
    // Durations in `gap` messages are rounded to a millisecond.
    if (holeMs > this.#toldMs + 2) {
      this.#lose(holeMs - this.#toldMs);
    }
    this.#toldMs = 0;
  }

  /** @param {number} durationMs */
  #lose(durationMs) {
    this.#numbers.gaps += 1;
    this.#numbers.gapMs += durationMs;
  }
}
