/** Keeps the screen on: a telephone that locks its screen takes the microphone away. */

export class ScreenLock {
  #wanted = false;
  #sentinel = null;

  constructor() {
    // The browser lets go of it whenever the page is hidden.
    document.addEventListener("visibilitychange", () => this.#ask());
  }

  /** @param {boolean} wanted Whether the screen should stay on from now on. */
  set wanted(wanted) {
    this.#wanted = wanted;
    this.#ask();
  }

  async #ask() {
    if (!this.#wanted) {
      this.#sentinel?.release();
      this.#sentinel = null;
      return;
    }
    if (document.visibilityState !== "visible" || this.#sentinel?.released === false) {
      return;
    }
    try {
      this.#sentinel = (await navigator.wakeLock?.request("screen")) ?? null;
    } catch {
      // The browser may refuse, for example when the battery is low; the broadcast goes on.
    }
  }
}
