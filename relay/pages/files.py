"""The web pages: a fixed table of files from the package, read once.

Invariants: A path is only a key of a table, never a file name, so path traversal is impossible. Every page forbids what
it does not need (scripts, styles and connections from other origins, framing). No address in a page begins with a
slash.

A proxy may serve the relay under a path such as https://example.org/relay/, which the relay never sees. The `<base>` of
each page therefore says how many levels up the relay is, and the page's scripts use `document.baseURI` as the relay's
address.

On a slow network, round trips make a page slow. Each page therefore names all modules that its script imports, so that
the browser requests them at once. It refers to its assets by a common fingerprint: assets/FINGERPRINT/…. A browser
keeps these without ever asking again, and an update changes the fingerprint. Everything else has an entity tag, so a
browser with a current copy gets no second one.

Error pages are translated without any script, because scripts may be what fails.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import chain
from pathlib import PurePosixPath
from posixpath import dirname, join, normpath
from types import MappingProxyType

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.names import ChannelAddress

_HTML = "text/html; charset=utf-8"

_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".flac": "audio/flac",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
"""Content types of the files under /assets/, by suffix. Other files of the folder are not served."""

_BUILT = ("dist", "node_modules")
"""Folders that npm creates beside the player's sources. They are not part of the pages."""

_DOCUMENTS = ("asyncapi.json", "openapi.json")
"""Descriptions of the relay's interfaces for programs, at the root. `python -m scripts.generate` writes them."""

_CHANNEL_PAGES = ("listen", "broadcast")
"""Pages about one channel: /NAME/SESSION and /NAME/SESSION/CHANNEL."""

_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        # 'self' includes a WebSocket to the same host and port. A file that a person broadcasts has a blob: address.
        # 'wasm-unsafe-eval' allows WebAssembly, which decodes Opus where the browser does not, and no other evaluation.
        "Content-Security-Policy": (
            "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; media-src 'self' blob:; base-uri 'self'; "
            "form-action 'none'; frame-ancestors 'none'; object-src 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # After an update, a name without a fingerprint may refer to another file.
        "Cache-Control": "no-cache",
    }
)

_KEPT = "public, max-age=31536000, immutable"
_FINGERPRINT = re.compile(r"/assets/[0-9a-f]{16}(?=/)")

EXPLAINED = (400, 404, 429, 503)
"""HTTP statuses with an error page: `error.html` with other texts."""

RIGHT_TO_LEFT = ("ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi")
"""Languages that are written from right to left. `i18n.js` has the same list."""

_ENGLISH = "en"
_MOST_LEVELS = 64
_MOST_LANGUAGES = 16
_TEXT = re.compile(r'(?<= data-i18n=")(error[a-z0-9.]+)">[^<]*')

_BASE = '<base href="./">'
"""The HTML element that says where the relay is, relative to the page."""

_SCRIPT = re.compile(r'<script type="module" src="([^"]+)"></script>')
_IMPORT = re.compile(r'(?:\bfrom|^import) "(\.[^"]+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """A response for a browser.

    Attributes:
        content_type: Value of the Content-Type header.
        body: The content.
        headers: The other headers; never Content-Type or Content-Length.
    """

    content_type: str
    body: bytes
    headers: Mapping[str, str]


class Pages:
    """Finds the page for a path. The constructor reads all files into memory.

    Attributes:
        assets: The path of the pages' assets: /assets/FINGERPRINT.

    Raises:
        OSError: A file is missing; the installation is broken.
    """

    def __init__(self) -> None:
        folder = files("relay") / "pages"
        self._fixed = {
            str(path): _page(content_type, file.read_bytes())
            for path, file in _walk(folder, PurePosixPath("/assets"))
            if (content_type := _CONTENT_TYPES.get(path.suffix))
        }
        for name in _DOCUMENTS:
            self._fixed[f"/{name}"] = _document(self._fixed.pop(f"/assets/{name}"))
        fingerprint = sha256(
            "".join(f"{path}{page.headers['ETag']}" for path, page in sorted(self._fixed.items())).encode()
        )
        self.assets = f"/assets/{fingerprint.hexdigest()[:16]}"
        self._channel_pages = {
            (name, ids): self._html(folder / f"{name}.html", "../" * ids) for name in _CHANNEL_PAGES for ids in (1, 2)
        }
        self._fixed["/"] = self._html(folder / "index.html", "./")
        self._languages = {
            file.name.removesuffix(".json"): json.loads(file.read_text(encoding="utf-8"))
            for file in (folder / "locales").iterdir()
        }
        error = (folder / "error.html").read_text(encoding="utf-8").replace('"assets/', f'"{self.assets[1:]}/')
        self._errors = {
            (status, language): _translate(error.replace("error.404", f"error.{status}"), language, texts)
            for status in EXPLAINED
            for language, texts in self._languages.items()
        }

    def _html(self, file: Traversable, base: str) -> Page:
        """Read a page that sees the relay at `base`, and add links that preload all its modules."""
        text = file.read_text(encoding="utf-8").replace(_BASE, f'<base href="{base}">', 1)
        modules = dict.fromkeys(chain.from_iterable(map(self._imports, _SCRIPT.findall(text))))
        links = "".join(f'    <link rel="modulepreload" href="{path[1:]}">\n' for path in modules)
        text = text.replace("  </head>", f"{links}  </head>", 1)
        return _page(_HTML, text.replace('"assets/', f'"{self.assets[1:]}/').encode())

    def _imports(self, module: str) -> Iterator[str]:
        """Yield the paths of all modules that a module imports, directly or indirectly, each once."""
        found, waiting = {f"/{module}"}, [f"/{module}"]
        while waiting:
            path = waiting.pop()
            for name in _IMPORT.findall(self._fixed[path].body.decode()):
                imported = normpath(join(dirname(path), name))
                if imported not in found:
                    found.add(imported)
                    waiting.append(imported)
                    yield imported

    def find(self, path: str) -> Page | None:
        """Return the page for a path.

        Args:
            path: The raw path of the request, not percent-decoded, without the query.

        Returns:
            The page, or None if there is no page with this path.

        Raises:
            BadRequestError: The path is that of a page about a channel, but its ids are not valid names.
        """
        if path in self._fixed:
            return self._fixed[path]
        if _FINGERPRINT.match(path):
            return self._asset(path)
        if not path.startswith("/"):
            return None
        name, *ids = path[1:].split("/")
        if name not in _CHANNEL_PAGES or not ids:
            return None
        if len(ids) > 2:  # noqa: PLR2004 - session and channel
            raise BadRequestError(f"The address must end with /{name}/SESSION or /{name}/SESSION/CHANNEL.")
        ChannelAddress(*ids)
        return self._channel_pages[name, len(ids)]

    def explain(self, status: int, path: str, accept_language: str) -> Page | None:
        """Return an error page in the first available language of the person, else in English.

        Args:
            status: The HTTP status of the answer.
            path: The raw path of the request.
            accept_language: The Accept-Language header; empty if there is none.

        Returns:
            The page, which must not be cached; None for a status that people do not meet.
        """
        tags = accept_language.lower().split(",", _MOST_LANGUAGES)
        wanted = [re.split("[-;]", tag.strip())[0] for tag in tags]
        language = next((tag for tag in wanted if tag in self._languages), _ENGLISH)
        text = self._errors.get((status, language))
        if text is None:
            return None
        levels = min(path.count("/") - 1, _MOST_LEVELS) if path.startswith("/") else 0
        body = text.replace(_BASE, f'<base href="{"../" * levels or "./"}">', 1).encode()
        return Page(_HTML, body, MappingProxyType({**_HEADERS, "Cache-Control": "no-store"}))

    def _asset(self, path: str) -> Page | None:
        """Return a file by its name with a fingerprint. An old fingerprint gets the present file, without caching."""
        page = self._fixed.get(_FINGERPRINT.sub("/assets", path, count=1))
        if page is None or not path.startswith(f"{self.assets}/"):
            return page
        return replace(page, headers=MappingProxyType({**page.headers, "Cache-Control": _KEPT}))


def _translate(text: str, language: str, words: Mapping[str, str]) -> str:
    text = _TEXT.sub(lambda found: f'{found[1]}">{words[found[1]]}', text)
    direction = ' dir="rtl"' if language in RIGHT_TO_LEFT else ""
    return text.replace('<html lang="en"', f'<html lang="{language}"{direction}', 1)


def _page(content_type: str, body: bytes) -> Page:
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    return Page(content_type, body, MappingProxyType({**_HEADERS, "ETag": tag}))


def _document(page: Page) -> Page:
    """Allow caches to keep a document for an hour. Programs that read it need no newer version."""
    return replace(page, headers=MappingProxyType({**page.headers, "Cache-Control": "public, max-age=3600"}))


def _walk(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, Traversable]]:
    """Yield all files below a folder of the package, each with its path under `path`."""
    for entry in folder.iterdir():
        if entry.is_dir():
            if entry.name not in _BUILT:
                yield from _walk(entry, path / entry.name)
        else:
            yield path / entry.name, entry
