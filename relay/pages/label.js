/**
 * What people call a channel: text of one line, of any language.
 *
 * The rules are those of relay/vocabulary/text.py and labels.py; tests/vectors/names.json holds both together.
 */

/** Characters of a name, counted as Unicode's code points. */
const LONGEST_NAME = 64;

/** Controls, unpaired surrogates, breaks of lines and paragraphs, and what stands for something that was not read. */
const NO_TEXT = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Noncharacter_Code_Point}\uFFFD]/u;

/** Directional embeddings and overrides, which reach beyond the text, and marks for programs that nobody sees. */
const OBSOLETE = /[\u202A-\u202E\u206A-\u206F\uFEFF\uFFF9-\uFFFB]/gu;

const ISOLATES = /[\u2066-\u2069]/gu;
const END_OF_ISOLATE = "\u2069";

/** Anything but marks, spaces, formats, and letters and symbols without ink. */
const INK = /[^\p{M}\p{Z}\p{Cf}\u115F\u1160\u2800\u3164\uFFA0]/u;

/**
 * @param {string} text
 * @returns {string | null} a name as the relay will keep it, or null where the relay would refuse it.
 */
export function tidyName(text) {
  if (NO_TEXT.test(text)) {
    return null;
  }
  const plain = text.replace(OBSOLETE, "");
  const isolated = isBalanced(plain) ? plain : plain.replace(ISOLATES, "");
  const name = isolated
    .normalize("NFC")
    .replace(/\p{Zs}+/gu, " ")
    .replace(/^ | $/g, "");
  return INK.test(name) && [...name].length <= LONGEST_NAME ? name : null;
}

/**
 * Tells whether each directional isolate ends within the text, and nothing ends that did not begin.
 *
 * @param {string} text
 */
function isBalanced(text) {
  let depth = 0;
  for (const [isolate] of text.matchAll(ISOLATES)) {
    depth += isolate === END_OF_ISOLATE ? -1 : 1;
    if (depth < 0) {
      return false;
    }
  }
  return depth === 0;
}
