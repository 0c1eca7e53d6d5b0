/** Live regions: texts that change by themselves and that screen readers then read out. */

/** Maximum characters of a text in the style of a heading. A longer one gets the style of a paragraph. */
const LONGEST_HEADLINE = 140;

/**
 * Writes a sentence into a live region if it differs from the present one. Screen readers read each change out.
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
