/** Detects speech from a microphone's levels. Pure. */

/** -40 dB: speech into a microphone is louder than this, and a quiet room is quieter. */
const LOUD_RMS = 0.01;

/** How much loud sound counts as speech. A cough or a door is shorter. Short pauses do not reset the count. */
const SPEECH_SECONDS = 0.4;

/** How long `isSpeaking` stays true after speech. */
const SHOWN_SECONDS = 4;

export class SpeechWatch {
  #loudSeconds = 0;
  #sinceSpeech = Infinity;

  /** Whether somebody has just spoken. */
  get isSpeaking() {
    return this.#sinceSpeech < SHOWN_SECONDS;
  }

  /**
   * Adds the level of the next stretch of sound, where 1 is full scale.
   *
   * @param {number} rms
   * @param {number} seconds
   */
  take(rms, seconds) {
    const change = rms >= LOUD_RMS ? seconds : -seconds / 2;
    this.#loudSeconds = Math.min(SPEECH_SECONDS, Math.max(0, this.#loudSeconds + change));
    this.#sinceSpeech = this.#loudSeconds === SPEECH_SECONDS ? 0 : this.#sinceSpeech + seconds;
  }
}
