/** Measures what an ear would notice in the recording of a tone: clicks, silence, loudness and pitch. */

/**
 * Finds the worst click. A sine satisfies x[n+1] = 2 cos(w) x[n] - x[n-1]; samples that break this recurrence click.
 *
 * @param {ArrayLike<number>} samples
 * @param {number} frequency In Hz.
 * @param {number} rate
 * @returns {number} The largest deviation, where 1 is full scale.
 */
export function worstBreak(samples, frequency, rate) {
  const turn = 2 * Math.cos((2 * Math.PI * frequency) / rate);
  let worst = 0;
  for (let i = 1; i + 1 < samples.length; i += 1) {
    worst = Math.max(worst, Math.abs(samples[i + 1] - turn * samples[i] + samples[i - 1]));
  }
  return worst;
}

/** Returns the length of the longest silence, in seconds. */
export function longestSilence(samples, rate) {
  let longest = 0;
  let run = 0;
  for (const sample of samples) {
    run = Math.abs(sample) < 1e-6 ? run + 1 : 0;
    longest = Math.max(longest, run);
  }
  return longest / rate;
}

/** Returns the level of each stretch of `seconds`, in dB relative to a tone at half of full scale. */
export function levels(samples, rate, seconds) {
  const length = Math.round(seconds * rate);
  const found = [];
  for (let start = 0; start + length <= samples.length; start += length) {
    let power = 0;
    for (let i = start; i < start + length; i += 1) {
      power += samples[i] * samples[i];
    }
    found.push(10 * Math.log10(Math.max(power / length, 1e-12) / 0.125));
  }
  return found;
}

/** Returns the pitch of a tone in Hz, measured from its rising zero crossings. */
export function pitch(samples, rate) {
  let first = null;
  let last = null;
  let periods = -1;
  for (let i = 1; i < samples.length; i += 1) {
    if (samples[i - 1] < 0 && samples[i] >= 0) {
      last = i - samples[i] / (samples[i] - samples[i - 1]);
      first ??= last;
      periods += 1;
    }
  }
  return (periods * rate) / (last - first);
}
