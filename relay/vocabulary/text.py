"""Cleans text that another machine or another person wrote."""

import re
import unicodedata

LONGEST_QUOTED = 80
"""Maximum length of a quotation in characters, a little more than the longest name."""

_LAST_IN_PLANE = 0xFFFE
_ARABIC_NONCHARACTERS = range(0xFDD0, 0xFDF0)

_NO_TEXT = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of controls, unpaired surrogates, and line and paragraph separators."""

_REPLACEMENT = "\ufffd"
"""A decoder writes this in place of bytes that it cannot read."""

_SPACES = re.compile("[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
"""Runs of characters that Unicode calls spaces (Zs)."""

_OBSOLETE = re.compile("[\u202a-\u202e\u206a-\u206f\ufeff\ufff9-\ufffb]")
"""Directional embeddings and overrides, whose effect reaches beyond the text, and invisible marks for programs."""

_ISOLATES = re.compile("[\u2066-\u2069]")
_END_OF_ISOLATE = "\u2069"

_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols without ink."""


def tidy(text: str) -> str:
    """Normalize a name or another one-line text in any language.

    Spaces of any kind become one ordinary space, and the ends have none. Letters and their marks are composed (NFC).
    Characters that join or separate letters and emoji stay, and so do balanced directional isolates. Unbalanced
    isolates and directional embeddings and overrides are removed, because they would change the direction of the text
    that follows. `relay/pages/label.js` has the same rules; `tests/vectors/names.json` keeps the two in step.

    Raises:
        ValueError: The text has nothing visible, or contains a control, a line break, half of a surrogate pair, a
            noncharacter or the replacement character.
    """
    if not all(map(_is_text, text)):
        raise ValueError("has a control character, a line break or an invalid character")
    text = _OBSOLETE.sub("", text)
    if not _is_balanced(text):
        text = _ISOLATES.sub("", text)
    text = _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip(" ")
    if not any(map(_has_ink, text)):
        raise ValueError("has nothing visible")
    return text


def printable(text: str) -> str:
    """Return another machine's text without anything that could control the person's terminal."""
    turns = _OBSOLETE if _is_balanced(text) else re.compile(f"{_OBSOLETE.pattern}|{_ISOLATES.pattern}")
    return turns.sub("?", "".join(character if _is_text(character) else "?" for character in text))


def quoted(value: object) -> str:
    """Quote another machine's value for a sentence: escaped, so that it cannot forge a line, and about a line long."""
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
    """Return whether every directional isolate ends within the text, and no end lacks a beginning."""
    depth = 0
    for isolate in _ISOLATES.findall(text):
        depth += -1 if isolate == _END_OF_ISOLATE else 1
        if depth < 0:
            return False
    return depth == 0
