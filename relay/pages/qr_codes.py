"""QR codes of listening pages' addresses, for posters and screens, on the `segno` library.

Invariants: a code holds the address of a listening page on the host that the request was sent to and nothing else, so
nobody can have one made for a text of their choice; only the page knows the path under which a proxy serves the relay,
so the request names it, in the characters of names; to draw one takes up to ten milliseconds, so the last ones are
kept, and whoever has one drawn is charged for it.
"""

import io
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qs

import segno

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.names import ChannelAddress

_BEFORE, _AFTER = "/qr/listen/", ".svg"
_HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?", re.ASCII)
_SCHEMES = ("http", "https")
_PREFIX = re.compile(r"(?=.{0,128}$)(/(?!\.+(/|$))[A-Za-z0-9._~-]+)*", re.ASCII)

KEPT_CODES = 256
"""Codes that are kept, of 2 to 10 KB each; the one that was not asked for the longest goes first."""

_MASK = 2
"""Every reader takes every mask; to look for the best of the eight takes four times as long as all the rest."""

_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        # Not for shared caches: some do not tell hosts apart.
        "Cache-Control": "private, max-age=86400",
    }
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A response for a browser; its `<title>` is the address that the code holds."""

    body: bytes
    content_type: str = "image/svg+xml"
    headers: Mapping[str, str] = field(default_factory=lambda: _HEADERS)


class QrCodes:
    """Answers `/qr/listen/SESSION.svg` and `/qr/listen/SESSION/CHANNEL.svg`, with `?scheme=https&prefix=/relay`."""

    def __init__(self) -> None:
        """Make it, without any code yet."""
        self._made: OrderedDict[str, Picture] = OrderedDict()

    def find(self, path: str, query: str, host: str, charge: Callable[[], None]) -> Picture | None:
        """Give the code for a path.

        Args:
            path: The raw path of the request.
            query: Its raw query; `scheme` is that of the page's own address, `http` when it says nothing, and `prefix`
                the path under which a proxy serves the relay.
            host: The Host header: the name by which the browser reaches this relay.
            charge: Is called before a code is drawn; what it raises is raised here, and nothing is drawn.

        Returns:
            The picture, or None when the path is not one of a code.

        Raises:
            BadRequestError: The ids are not names, the scheme is another one, or prefix or host is not one.
        """
        if not (path.startswith(_BEFORE) and path.endswith(_AFTER)):
            return None
        ids = path.removeprefix(_BEFORE).removesuffix(_AFTER).split("/")
        if len(ids) > 2:  # noqa: PLR2004 - session and channel
            raise BadRequestError("The address ends with /qr/listen/SESSION.svg or /qr/listen/SESSION/CHANNEL.svg.")
        ChannelAddress(*ids)
        said = parse_qs(query)
        scheme, prefix = said.get("scheme", ["http"])[-1], said.get("prefix", [""])[-1]
        if scheme not in _SCHEMES:
            raise BadRequestError("scheme must be http or https.")
        if _PREFIX.fullmatch(prefix) is None:
            raise BadRequestError("prefix must be a path such as /relay, of at most 128 characters.")
        if _HOST.fullmatch(host) is None:
            raise BadRequestError("The Host header is not a host's name with or without a port.")
        return self._picture("/".join([f"{scheme}://{host}{prefix}/listen", *ids]), charge)

    def _picture(self, address: str, charge: Callable[[], None]) -> Picture:
        picture = self._made.get(address)
        if picture is None:
            charge()
            picture = self._made[address] = Picture(_draw(address))
        self._made.move_to_end(address)
        if len(self._made) > KEPT_CODES:
            self._made.popitem(last=False)
        return picture


def _draw(address: str) -> bytes:
    drawing = io.BytesIO()
    code = segno.make_qr(address, error="m", mask=_MASK)
    code.save(drawing, kind="svg", xmldecl=False, light="#fff", omitsize=True, title=address)
    return drawing.getvalue()
