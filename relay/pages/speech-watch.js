/** Notices, by the levels of a microphone, that somebody speaks into it. Pure. */

/** Speech into a microphone is above this (-40 dB), a quiet room below. */
const LOUD_RMS = 0.01;

/** A cough or a door is over before; speech has short pauses. */
const SPEECH_SECONDS = 0.4;

/** How long a person is told of it. */
const SHOWN_SECONDS = 4;

export class SpeechWatch {
  #loudSeconds = 0;
  #sinceSpeech = Infinity;

  /** Whether somebody spoke a moment ago. */
  get isSpeaking() {
    return this.#sinceSpeech < SHOWN_SECONDS;
  }

  /**
   * Takes the level of so much sound; 1 is full scale.
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
