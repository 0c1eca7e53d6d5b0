"""Text that another machine wrote."""

LONGEST_QUOTED = 80
"""Characters of a quotation; a little more than a name may have."""


def printable(text: str) -> str:
    """Give another machine's text so that it can not steer the person's terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def quoted(value: object) -> str:
    """Quote another machine's value for a sentence: escaped, so that it can not forge a line, and about a line long."""
    text = ascii(value)
    return text if len(text) <= LONGEST_QUOTED else f"{text[:LONGEST_QUOTED]}…"
