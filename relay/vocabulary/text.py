"""Text that another machine wrote."""


def printable(text: str) -> str:
    """Give another machine's text so that it can not steer the person's terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
