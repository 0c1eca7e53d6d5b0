"""Text that another machine or another person wrote."""

import re
import unicodedata

LONGEST_QUOTED = 80
"""Characters of a quotation; a little more than a name may have."""

_LAST_IN_PLANE = 0xFFFE
_ARABIC_NONCHARACTERS = range(0xFDD0, 0xFDF0)

_NO_TEXT = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's categories of controls, unpaired surrogates, and characters that break a line or a paragraph."""

_REPLACEMENT = "\ufffd"
"""What a decoder puts where it could not read something."""

_SPACES = re.compile("[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
"""Runs of what Unicode calls a space (Zs)."""

_OBSOLETE = re.compile("[\u202a-\u202e\u206a-\u206f\ufeff\ufff9-\ufffb]")
"""Directional embeddings and overrides, which reach beyond the text, and marks for programs that nobody sees."""

_ISOLATES = re.compile("[\u2066-\u2069]")
_END_OF_ISOLATE = "\u2069"

_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols without ink."""


def tidy(text: str) -> str:
    """Normalize a name or another text of one line, in whatever language it is.

    Spaces of any kind become one ordinary space, none at the ends. Letters and their marks are composed (NFC). What
    joins or keeps apart letters and emoji stays. So do directional isolates that are balanced; others, and
    directional embeddings and overrides, are taken out, because they would turn the text behind this one around.
    `relay/pages/label.js` has the same rules; `tests/vectors/names.json` holds both together.

    Raises:
        ValueError: It has nothing to see, or something that is no text: a control, a line break, a half of a
            surrogate pair, a noncharacter or the replacement character.
    """
    if not all(map(_is_text, text)):
        raise ValueError("it has a control character, a line break or something that is no character")
    text = _OBSOLETE.sub("", text)
    if not _is_balanced(text):
        text = _ISOLATES.sub("", text)
    text = _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip(" ")
    if not any(map(_has_ink, text)):
        raise ValueError("there is nothing in it to see")
    return text


def printable(text: str) -> str:
    """Give another machine's text so that it can not steer the person's terminal."""
    turns = _OBSOLETE if _is_balanced(text) else re.compile(f"{_OBSOLETE.pattern}|{_ISOLATES.pattern}")
    return turns.sub("?", "".join(character if _is_text(character) else "?" for character in text))


def quoted(value: object) -> str:
    """Quote another machine's value for a sentence: escaped, so that it can not forge a line, and about a line long."""
    text = ascii(value)
    return text if len(text) <= LONGEST_QUOTED else f"{text[:LONGEST_QUOTED]}…"


def _is_text(character: str) -> bool:
    point = ord(character)
    is_noncharacter = point in _ARABIC_NONCHARACTERS or point & _LAST_IN_PLANE == _LAST_IN_PLANE
    return not is_noncharacter and character != _REPLACEMENT and unicodedata.category(character) not in _NO_TEXT


def _has_ink(character: str) -> bool:
    category = unicodedata.category(character)
    return category != "Cf" and category[0] not in "MZ" and character not in _BLANK


def _is_balanced(text: str) -> bool:
    """Tell whether each directional isolate ends within the text, and nothing ends that did not begin."""
    depth = 0
    for isolate in _ISOLATES.findall(text):
        depth += -1 if isolate == _END_OF_ISOLATE else 1
        if depth < 0:
            return False
    return depth == 0
