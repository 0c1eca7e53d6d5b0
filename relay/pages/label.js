/**
 * Names of sessions and channels: one line of text in any language.
 *
 * The rules are those of relay/vocabulary/text.py and labels.py. tests/vectors/names.json tests both implementations.
 */

/** Maximum length of a name in Unicode code points. */
const LONGEST_NAME = 64;

/** Control characters, unpaired surrogates, line and paragraph separators, noncharacters, and U+FFFD. */
const NO_TEXT = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Noncharacter_Code_Point}\uFFFD]/u;

/** Directional embeddings and overrides, which can affect text beyond the name, and invisible control marks. */
const OBSOLETE = /[\u202A-\u202E\u206A-\u206F\uFEFF\uFFF9-\uFFFB]/gu;

const ISOLATES = /[\u2066-\u2069]/gu;
const END_OF_ISOLATE = "\u2069";

/** Visible characters: all except combining marks, spaces, format characters, and blank letters and symbols. */
const INK = /[^\p{M}\p{Z}\p{Cf}\u115F\u1160\u2800\u3164\uFFA0]/u;

/**
 * @param {string} text
 * @returns {string | null} The name as the relay stores it, or null if the relay would refuse it.
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
 * Whether each directional isolate has its end within the text, and each end its isolate.
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
