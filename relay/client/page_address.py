"""Reads the address of a relay's page, as people copy it from a browser: it names the relay, session and channel.

Source: docs/protocol.md, "Addresses". A secret is in the query, or after `#`, where the pages look for it.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.text import quoted

_FORM = re.compile(
    r"(?P<relay>(?:https?|wss?)://[^/?#@\s]+(?:/[^?#\s]*?)??)(?:/v1)?/(?:listen|broadcast)/"
    r"(?P<session>[^/?#\s]+)(?:/(?P<channel>[^/?#\s]+))?/?(?:\?(?P<query>[^#\s]*))?(?:#(?P<fragment>\S*))?"
)


@dataclass(frozen=True, slots=True)
class PageAddress:
    """What the address of a page names.

    Attributes:
        relay: Address of the relay.
        session: Id of the session.
        channel: Id of the channel; None if there is none.
        credential: Token or key; None if there is none.
    """

    relay: str
    session: str
    channel: str | None
    credential: str | None = field(repr=False)


def read_page_address(text: str) -> PageAddress | None:
    """Read the address of a listening or broadcasting page. Return None if the text is meant as an id.

    Raises:
        BadRequestError: The text is another kind of address. The error does not repeat the secret.
    """
    if re.search("://|/listen/|/broadcast/", text) is None:
        return None
    match = _FORM.fullmatch(text.strip())
    if match is None:
        shown = quoted(re.split("[?#]", text)[0])
        raise BadRequestError(
            f"{shown} is neither the id of a session, such as ev1, nor the address of its page, "
            "such as https://relay.example.org/listen/ev1."
        )
    credential = _find_secret(match["fragment"]) or _find_secret(match["query"])
    return PageAddress(match["relay"], match["session"], match["channel"], credential)


def _find_secret(members: str | None) -> str | None:
    read = parse_qs(members or "")
    return next((read[name][0] for name in ("token", "key") if name in read), None)
