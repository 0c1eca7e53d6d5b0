/** Keeps the screen on, because a phone that locks its screen stops the microphone. */

export class ScreenLock {
  #wanted = false;
  /** @type {WakeLockSentinel | null} */
  #sentinel = null;
  /** @type {Promise<void>} */
  #lastStep = Promise.resolve();

  constructor() {
    // The browser releases the lock whenever the page is hidden.
    document.addEventListener("visibilitychange", () => this.#follow());
  }

  /** @param {boolean} wanted Whether to keep the screen on from now on. */
  set wanted(wanted) {
    this.#wanted = wanted;
    this.#follow();
  }

  /** Runs the steps one after another, so that each sees the lock that the step before it got. */
  #follow() {
    this.#lastStep = this.#lastStep.then(() => (this.#wanted ? this.#ask() : this.#letGo()));
  }

  async #ask() {
    if (document.visibilityState !== "visible" || this.#sentinel?.released === false) {
      return;
    }
    try {
      this.#sentinel = (await navigator.wakeLock?.request("screen")) ?? null;
    } catch {
      // The browser may refuse, for example at low battery. The broadcast continues without the lock.
    }
  }

  async #letGo() {
    await this.#sentinel?.release();
    this.#sentinel = null;
  }
}
