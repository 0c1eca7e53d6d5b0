"""The pages for a person: a fixed table of files from the package, read once.

Invariants: a path is only ever a key of a table, never a name in a file system, so there is nothing to traverse;
every page forbids what it does not need (scripts, styles and connections of other origins, framing).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.names import ChannelAddress

_HTML = "text/html; charset=utf-8"
_SCRIPT = "text/javascript; charset=utf-8"

_ASSETS = {
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "start-page.js": _SCRIPT,
    "listen-page.js": _SCRIPT,
    "player.js": _SCRIPT,
    "playback-processor.js": _SCRIPT,
    "playout.js": _SCRIPT,
    "broadcast-page.js": _SCRIPT,
    "broadcaster.js": _SCRIPT,
    "capture-processor.js": _SCRIPT,
    "capture.js": _SCRIPT,
    "level-meter.js": _SCRIPT,
    "send-queue.js": _SCRIPT,
    "sources.js": _SCRIPT,
    "relay-socket.js": _SCRIPT,
    "resampler.js": _SCRIPT,
    "wire.js": _SCRIPT,
}
"""Names under /assets/, with their content types."""

_CHANNEL_PAGES = ("listen", "broadcast")
"""Pages about one channel: /NAME/SESSION and /NAME/SESSION/CHANNEL."""

_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        # A WebSocket to the same host and port is within 'self'.
        "Content-Security-Policy": (
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # Names of assets say nothing about versions: after an update old and new modules must not meet.
        "Cache-Control": "no-cache",
    }
)


@dataclass(frozen=True, slots=True)
class Page:
    """A response for a browser.

    Attributes:
        content_type: Value of the Content-Type header.
        body: What to send.
        headers: The other headers that belong to it; never Content-Type or Content-Length.
    """

    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: _HEADERS)


class Pages:
    """Finds the page for a path. The files are in memory from the construction on."""

    def __init__(self) -> None:
        """Read the files of the package.

        Raises:
            OSError: A file is missing; the installation is broken.
        """
        folder = files("relay") / "pages"
        self._fixed = {"/": Page(_HTML, (folder / "index.html").read_bytes())}
        for name, content_type in _ASSETS.items():
            self._fixed[f"/assets/{name}"] = Page(content_type, (folder / name).read_bytes())
        self._channel_pages = {name: Page(_HTML, (folder / f"{name}.html").read_bytes()) for name in _CHANNEL_PAGES}

    def find(self, path: str) -> Page | None:
        """Find the page for a path.

        Args:
            path: The raw path of the request, not percent-decoded, without the query.

        Returns:
            The page, or None when the path is not one of a page.

        Raises:
            BadRequestError: It is the path of a page about a channel, but its ids are not names.
        """
        if path in self._fixed:
            return self._fixed[path]
        if not path.startswith("/"):
            return None
        name, *ids = path[1:].split("/")
        page = self._channel_pages.get(name)
        if page is None or not ids:
            return None
        if len(ids) > 2:  # noqa: PLR2004 - session and channel
            raise BadRequestError(f"The address is /{name}/SESSION or /{name}/SESSION/CHANNEL.")
        ChannelAddress(*ids)
        return page
