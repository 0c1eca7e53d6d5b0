"""What people call a channel: a name, and the language that is spoken in it; and what they call a session.

Invariant: a name is short and tidy text of one line, and a language has the form of a BCP 47 tag; whether there is such
a language, only the person's browser needs to know.
"""

import re
from dataclasses import dataclass
from typing import Self

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.names import check_name
from relay.vocabulary.text import quoted, tidy

ANY_SESSION = "*"
"""Stands for every session where the operator names a channel."""

LONGEST_NAME = 64
"""Characters of a name, counted as Unicode's code points."""

_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,8}", re.ASCII)
_NO_LANGUAGE = "-"


@dataclass(frozen=True, slots=True)
class Label:
    """What people call a channel; None where nobody said.

    Attributes:
        name: For a list to choose from; kept tidy.
        lang: BCP 47 tag.
    """

    name: str | None = None
    lang: str | None = None

    def __post_init__(self) -> None:
        """Check both, and tidy the name.

        Raises:
            BadRequestError: One of them is not of its form.
        """
        name, lang = self.name, self.lang
        if name is not None:
            object.__setattr__(self, "name", tidy_name("name", name))
        if lang is not None and _LANGUAGE.fullmatch(lang) is None:
            raise BadRequestError(f"lang must be a BCP 47 tag such as de or pt-BR, not {quoted(lang)}.")


def tidy_name(member: str, name: str) -> str:
    """Tidy a name that people gave.

    Raises:
        BadRequestError: It is none; the text says so of `member`.
    """
    try:
        tidied = tidy(name)
    except ValueError as error:
        raise BadRequestError(f"{member} must be text that people can read, not {quoted(name)}: {error}.") from error
    if len(tidied) > LONGEST_NAME:
        raise BadRequestError(f"{member} must be 1 to {LONGEST_NAME} characters, not {len(tidied)}.")
    return tidied


@dataclass(frozen=True, slots=True)
class Declaration:
    """A channel or a session that the operator names before anybody broadcasts to it.

    Attributes:
        session: Of which session; `ANY_SESSION` for every one.
        channel: Its id; None where it is the session that has the name.
        label: What people call it.
    """

    session: str
    channel: str | None
    label: Label

    @classmethod
    def read(cls, text: str) -> Self:
        """Read `SESSION/CHANNEL LANGUAGE NAME`, or `SESSION - NAME`; `*` is every session, `-` is no language.

        Raises:
            BadRequestError: The text is not of this form.
        """
        address, lang, name = [*text.split(maxsplit=2), "", "", ""][:3]
        session, slash, channel = address.partition("/")
        if not (lang and name) or not (slash or lang == _NO_LANGUAGE):
            raise BadRequestError(f'A channel is declared as "ev1/de de Deutsch", not as {quoted(text)}.')
        if session != ANY_SESSION:
            check_name("session", session)
        if slash:
            check_name("channel", channel)
        return cls(session, channel if slash else None, Label(name, None if lang == _NO_LANGUAGE else lang))
