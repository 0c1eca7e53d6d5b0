/** Judges what was heard of a tone, as an ear would: steps, silence, pitch. */

/**
 * A sample that breaks the recurrence of a sine, x[n+1] = 2 cos(w) x[n] - x[n-1], is a click.
 *
 * @param {ArrayLike<number>} samples
 * @param {number} frequency In Hz.
 * @param {number} rate
 * @returns {number} the worst break; 1 is full scale.
 */
export function worstBreak(samples, frequency, rate) {
  const turn = 2 * Math.cos((2 * Math.PI * frequency) / rate);
  let worst = 0;
  for (let i = 1; i + 1 < samples.length; i += 1) {
    worst = Math.max(worst, Math.abs(samples[i + 1] - turn * samples[i] + samples[i - 1]));
  }
  return worst;
}

/** Gives the longest run of zeros, in seconds. */
export function longestSilence(samples, rate) {
  let longest = 0;
  let run = 0;
  for (const sample of samples) {
    run = Math.abs(sample) < 1e-6 ? run + 1 : 0;
    longest = Math.max(longest, run);
  }
  return longest / rate;
}

/** Gives the loudness in each stretch of `seconds`, against that of a tone at half of full scale, in dB. */
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

/** Gives the pitch of a tone in Hz, from its rising zero crossings. */
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
