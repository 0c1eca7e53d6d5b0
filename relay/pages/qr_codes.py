"""QR codes with the addresses of listening pages, for posters and screens, created by the `segno` library.

Invariants: A code contains the address of a listening page on the host of the request and nothing else, so nobody can
request a code for a text of their choice. Only the page knows the path under which a proxy serves the relay, so the
request names it, in the characters of names. Drawing takes up to ten milliseconds, so recent codes are kept, and each
new drawing is charged to its client.
"""

import io
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from urllib.parse import parse_qs

import segno

from relay.pages.files import Page
from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.names import ChannelAddress

_BEFORE, _AFTER = "/qr/listen/", ".svg"
_HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?", re.ASCII)
_SCHEMES = ("http", "https")
_PREFIX = re.compile(r"(?=.{0,128}$)(/(?!\.+(/|$))[A-Za-z0-9._~-]+)*", re.ASCII)

KEPT_CODES = 256
"""The most codes kept, of 2 to 10 KB each. The least recently requested one is dropped first."""

_MASK = 2
"""A fixed mask, because every reader accepts every mask. Choosing the best of the eight takes four times as long as
everything else."""

_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        # Shared caches are excluded because some do not distinguish hosts.
        "Cache-Control": "private, max-age=86400",
    }
)


class QrCodes:
    """Answers `/qr/listen/SESSION.svg` and `/qr/listen/SESSION/CHANNEL.svg`, with `?scheme=https&prefix=/relay`."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, Page] = OrderedDict()

    def find(self, path: str, query: str, host: str, charge: Callable[[], None]) -> Page | None:
        """Return the code for a path.

        Args:
            path: The raw path of the request.
            query: Its raw query: `scheme` is the scheme of the page's own address, `http` by default, and `prefix` the
                path under which a proxy serves the relay.
            host: The Host header: the name by which the browser reaches this relay.
            charge: Called before a code is drawn. Its exceptions propagate, and nothing is drawn.

        Returns:
            The picture, whose `<title>` is that address, or None if the path is not one of a code.

        Raises:
            BadRequestError: The ids are not valid names, or scheme, prefix or host is invalid.
        """
        if not (path.startswith(_BEFORE) and path.endswith(_AFTER)):
            return None
        ids = path.removeprefix(_BEFORE).removesuffix(_AFTER).split("/")
        if len(ids) > 2:  # noqa: PLR2004 - session and channel
            raise BadRequestError("The address must end with /qr/listen/SESSION.svg or /qr/listen/SESSION/CHANNEL.svg.")
        ChannelAddress(*ids)
        said = parse_qs(query)
        scheme, prefix = said.get("scheme", ["http"])[-1], said.get("prefix", [""])[-1]
        if scheme not in _SCHEMES:
            raise BadRequestError("scheme must be http or https.")
        if _PREFIX.fullmatch(prefix) is None:
            raise BadRequestError("prefix must be a path such as /relay, with at most 128 characters.")
        if _HOST.fullmatch(host) is None:
            raise BadRequestError("The Host header must be the name of a host, with or without a port.")
        return self._picture("/".join([f"{scheme}://{host}{prefix}/listen", *ids]), charge)

    def _picture(self, address: str, charge: Callable[[], None]) -> Page:
        picture = self._made.get(address)
        if picture is None:
            charge()
            picture = self._made[address] = Page("image/svg+xml", _draw(address), _HEADERS)
        self._made.move_to_end(address)
        if len(self._made) > KEPT_CODES:
            self._made.popitem(last=False)
        return picture


def _draw(address: str) -> bytes:
    drawing = io.BytesIO()
    code = segno.make_qr(address, error="m", mask=_MASK)
    code.save(drawing, kind="svg", xmldecl=False, light="#fff", omitsize=True, title=address)
    return drawing.getvalue()
