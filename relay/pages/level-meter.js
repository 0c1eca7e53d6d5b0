/** A level meter: shows peak and RMS on a decibel scale, also to screen readers. */

import { CLIPPED_PEAK } from "./capture.js";
import { formatNumber, t } from "./i18n.js";

const FLOOR_DB = -60;
const INTERVAL_MS = 50;
const PEAK_HOLD_MS = 1500;
const CLIP_HOLD_MS = 3000;

/** A screen reader cannot read values out more often than this. */
const WORDS_INTERVAL_MS = 1000;

export class LevelMeter {
  #meter;
  #output;
  #peak = 0;
  #power = 0;
  #frames = 0;
  #shownAt = 0;
  #held = 0;
  #heldAt = 0;
  #clippedAt = -Infinity;
  #wordsAt = -Infinity;

  /**
   * @param {HTMLElement} meter An element with the role `meter`. It gets the properties `--rms` and `--peak`, between 0
   *   and 1, and for a while after a peak at full scale the class `clipped`.
   * @param {HTMLElement} output Shows the held peak as text.
   */
  constructor(meter, output) {
    this.#meter = meter;
    this.#output = output;
  }

  /**
   * Adds the levels of one frame, where 1 is full scale. The meter shows the peak and RMS of all frames since its last
   * update.
   *
   * @param {{peak: number, rms: number}} levels
   */
  take({ peak, rms }) {
    this.#peak = Math.max(this.#peak, peak);
    this.#power += rms * rms;
    this.#frames += 1;
    const now = performance.now();
    if (now - this.#shownAt >= INTERVAL_MS) {
      this.#show(now);
    }
  }

  reset() {
    this.#held = 0;
    this.#peak = 0;
    this.#power = 0;
    this.#frames = 1;
    this.#clippedAt = -Infinity;
    this.#wordsAt = -Infinity;
    this.#show(performance.now());
    this.#output.textContent = "–";
    this.#meter.setAttribute("aria-valuetext", "–");
  }

  /** @param {number} now */
  #show(now) {
    if (this.#peak >= this.#held || now - this.#heldAt > PEAK_HOLD_MS) {
      this.#held = this.#peak;
      this.#heldAt = now;
    }
    if (this.#peak >= CLIPPED_PEAK) {
      this.#clippedAt = now;
    }
    const clipped = now - this.#clippedAt < CLIP_HOLD_MS;
    const decibels = toDecibels(this.#held);
    this.#meter.style.setProperty("--rms", toFraction(Math.sqrt(this.#power / this.#frames)));
    this.#meter.style.setProperty("--peak", toFraction(this.#held));
    this.#meter.classList.toggle("clipped", clipped);
    this.#output.textContent = clipped ? t("broadcast.level.clipped") : describe(decibels);
    if (now - this.#wordsAt >= WORDS_INTERVAL_MS) {
      this.#wordsAt = now;
      this.#meter.setAttribute("aria-valuenow", decibels.toFixed(0));
      this.#meter.setAttribute("aria-valuetext", this.#output.textContent);
    }
    this.#peak = 0;
    this.#power = 0;
    this.#frames = 0;
    this.#shownAt = now;
  }
}

/** @param {number} decibels */
function describe(decibels) {
  if (decibels <= FLOOR_DB) {
    return t("broadcast.level.none");
  }
  return `${formatNumber(decibels, { maximumFractionDigits: 0 }).replace("-", "−")} dB`;
}

/** @param {number} amplitude */
function toDecibels(amplitude) {
  return Math.min(0, Math.max(FLOOR_DB, 20 * Math.log10(amplitude + 1e-9)));
}

/** @param {number} amplitude */
function toFraction(amplitude) {
  return (1 - toDecibels(amplitude) / FLOOR_DB).toFixed(3);
}
