"""What people call a channel or a session: a name, and for a channel the language that is spoken in it.

Invariant: a name is one short line of tidy text, and a language has the form of a BCP 47 tag. Whether the language
exists matters only to the browser.
"""

import re
from dataclasses import dataclass
from typing import Self

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.names import check_name
from relay.vocabulary.text import quoted, tidy

ANY_SESSION = "*"
"""Stands for every session where the operator declares a channel."""

LONGEST_NAME = 64
"""Maximum length of a name, in Unicode code points."""

_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,8}", re.ASCII)
_NO_LANGUAGE = "-"


@dataclass(frozen=True, slots=True)
class Label:
    """What people call a channel.

    Attributes:
        name: The name in a list of channels, tidied; None if there is none.
        lang: BCP 47 tag; None if there is none.
    """

    name: str | None = None
    lang: str | None = None

    def __post_init__(self) -> None:
        """Tidy the name and check the language.

        Raises:
            BadRequestError: The name or the language is not valid.
        """
        name, lang = self.name, self.lang
        if name is not None:
            object.__setattr__(self, "name", tidy_name("name", name))
        if lang is not None and _LANGUAGE.fullmatch(lang) is None:
            raise BadRequestError(f"lang must be a BCP 47 tag such as de or pt-BR, not {quoted(lang)}.")


def tidy_name(member: str, name: str) -> str:
    """Return the name, tidied; `member` is what an error calls it.

    Raises:
        BadRequestError: The name is not readable text, or too long.
    """
    try:
        tidied = tidy(name)
    except ValueError as error:
        raise BadRequestError(f"{member} must be text that people can read, but {quoted(name)} {error}.") from error
    if len(tidied) > LONGEST_NAME:
        raise BadRequestError(f"{member} must have 1 to {LONGEST_NAME} characters, not {len(tidied)}.")
    return tidied


@dataclass(frozen=True, slots=True)
class Declaration:
    """A channel or a session that the operator named before anybody broadcasts to it.

    Attributes:
        session: The session's id, or `ANY_SESSION`.
        channel: The channel's id; None if this names the session itself.
        label: What people call it.
    """

    session: str
    channel: str | None
    label: Label

    @classmethod
    def read(cls, text: str) -> Self:
        """Read `SESSION/CHANNEL LANGUAGE NAME` or `SESSION - NAME`; `*` means every session, `-` no language.

        Raises:
            BadRequestError: The text does not have this form.
        """
        address, lang, name = [*text.split(maxsplit=2), "", "", ""][:3]
        session, slash, channel = address.partition("/")
        if not (lang and name) or not (slash or lang == _NO_LANGUAGE):
            raise BadRequestError(f'A channel must be declared like "ev1/de de Deutsch", not like {quoted(text)}.')
        if session != ANY_SESSION:
            check_name("session", session)
        if slash:
            check_name("channel", channel)
        return cls(session, channel if slash else None, Label(name, None if lang == _NO_LANGUAGE else lang))
