/** The sentences of a page that change by themselves and are read out. */

/** A sentence with more characters explains something. It is shown as text, and not as a heading. */
const LONGEST_HEADLINE = 140;

/**
 * Writes a sentence into a live region, which reads it out only when it is another one.
 *
 * @param {HTMLElement} region
 * @param {string} sentence
 */
export function say(region, sentence) {
  if (region.textContent !== sentence) {
    region.textContent = sentence;
    region.classList.toggle("long", sentence.length > LONGEST_HEADLINE);
  }
}
