/** Keeps the screen on: a telephone that locks its screen takes the microphone away. */

export class ScreenLock {
  #wanted = false;
  /** @type {WakeLockSentinel | null} */
  #sentinel = null;
  /** @type {Promise<void>} */
  #lastStep = Promise.resolve();

  constructor() {
    // The browser lets go of it whenever the page is hidden.
    document.addEventListener("visibilitychange", () => this.#follow());
  }

  /** @param {boolean} wanted Whether the screen should stay on from now on. */
  set wanted(wanted) {
    this.#wanted = wanted;
    this.#follow();
  }

  /** One step after the other, so that each knows what the one before it was given. */
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
      // The browser may refuse, for example when the battery is low; the broadcast goes on.
    }
  }

  async #letGo() {
    await this.#sentinel?.release();
    this.#sentinel = null;
  }
}
