/**
 * Draws the last half minute as a chart: the delay as a line, the buffer as an area below it.
 *
 * If the person prefers reduced motion, the chart updates only every few seconds.
 */

const SECONDS = 30;
const INTERVAL_MS = 250;
const CALM_INTERVAL_MS = 5000;

/** Size of the chart: that of the SVG's viewBox. */
const WIDTH = 300;
const HEIGHT = 60;

/** Possible tops of the scale in ms. The chart uses the lowest that fits. */
const TOPS = [400, 800, 1600, 3200, 6400, 12_800];

const POINTS = (SECONDS * 1000) / INTERVAL_MS;

export class LivePicture {
  #buffer;
  #delay;
  /** @type {{bufferMs: number, delayMs: number | null}[]} */
  #history = [];
  #takenAt = -Infinity;
  #drawnAt = -Infinity;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");

  /**
   * @param {SVGPathElement} buffer Draws the area.
   * @param {SVGPathElement} delay Draws the line.
   */
  constructor(buffer, delay) {
    this.#buffer = buffer;
    this.#delay = delay;
  }

  /**
   * Adds a player's measurements to the chart. An unknown delay is null.
   *
   * @param {{bufferMs: number, delayMs: number | null}} stats
   * @param {number} nowMs
   */
  take({ bufferMs, delayMs }, nowMs) {
    if (nowMs - this.#takenAt < INTERVAL_MS * 0.8) {
      return;
    }
    this.#takenAt = nowMs;
    this.#history.push({ bufferMs, delayMs });
    this.#history.splice(0, this.#history.length - POINTS);
    if (nowMs - this.#drawnAt >= (this.#calm.matches ? CALM_INTERVAL_MS : 0)) {
      this.#drawnAt = nowMs;
      this.#draw();
    }
  }

  clear() {
    this.#history = [];
    this.#takenAt = -Infinity;
    this.#drawnAt = -Infinity;
    this.#draw();
  }

  #draw() {
    const buffers = this.#history.map(({ bufferMs }) => bufferMs);
    const delays = this.#history.map(({ delayMs }) => delayMs ?? 0);
    const most = Math.max(...buffers, ...delays);
    const top = TOPS.find((candidate) => candidate >= most) ?? most;
    const first = POINTS - this.#history.length;
    /**
     * @param {number} ms
     * @param {number} i
     */
    const toPoint = (ms, i) => {
      const x = ((first + i) / (POINTS - 1)) * WIDTH;
      return `${x.toFixed(1)},${(HEIGHT * (1 - ms / top)).toFixed(1)}`;
    };
    const area = buffers.map(toPoint).join(" ");
    const start = ((first / (POINTS - 1)) * WIDTH).toFixed(1);
    this.#buffer.setAttribute("d", area && `M${start},${HEIGHT} L${area} L${WIDTH},${HEIGHT} Z`);
    this.#delay.setAttribute("d", delays.some((ms) => ms > 0) ? `M${delays.map(toPoint).join(" L")}` : "");
  }
}
