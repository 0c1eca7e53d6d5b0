"""The head of an HTTP request, from bytes: read as they come, bounded, and refused for a reason that has a name.

Invariants: whatever comes is a head, a fault or not complete yet; no more than the bound is kept; what one reader
would take for a body and another for the next request is a fault.

Source: RFC 9112 (HTTP/1.1), sections 2.2, 3 and 5 to 7.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from relay.vocabulary.errors import BadRequestError

MAX_HEADERS = 128
"""More than any browser or proxy sends; reading one takes a microsecond or two."""


class Fault(StrEnum):
    """Why a head can't be read; the value is its name in the log."""

    URI_TOO_LONG = "uri_too_long"
    TOO_LARGE = "too_large"
    TOO_MANY_HEADERS = "too_many_headers"
    NOT_HTTP = "not_http"
    PROXY_PROTOCOL = "proxy_protocol"
    VERSION = "version"
    TARGET = "target"
    HEADER = "header"
    BODY = "body"
    CUT_SHORT = "cut_short"


_ANSWERS = {
    Fault.URI_TOO_LONG: (414, "The address is longer than limits.max_handshake_bytes."),
    Fault.TOO_LARGE: (
        431,
        "The request's headers are larger than limits.max_handshake_bytes; cookies are the usual reason.",
    ),
    Fault.TOO_MANY_HEADERS: (
        431,
        f"The request has more than {MAX_HEADERS} headers.",
    ),
    Fault.NOT_HTTP: (400, "This is no HTTP request."),
    Fault.PROXY_PROTOCOL: (
        400,
        "The relay does not read the PROXY protocol; have the proxy send X-Forwarded-For.",
    ),
    Fault.VERSION: (505, "The relay speaks HTTP/1.1."),
    Fault.TARGET: (400, "The address is malformed; other characters than ASCII are written as %XX."),
    Fault.HEADER: (400, "A header is malformed."),
    Fault.BODY: (400, "This request must have no body."),
    Fault.CUT_SHORT: (400, "The request ended before its headers did."),
}

_END = re.compile(rb"\n\r?\n")
_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_VERSION = re.compile(rb"HTTP/([0-9])(?:\.([0-9]))?")
_ABSOLUTE = re.compile(r"(?:http|ws)s?://([^/?#@]+)([/?].*)?", re.IGNORECASE)
_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
"""No path has these methods, so the answer is 405 whatever the body is."""


class UnreadableRequestError(BadRequestError):
    """A request that can't be read.

    Attributes:
        fault: What is wrong.
        status: HTTP status of the answer.
    """

    def __init__(self, fault: Fault) -> None:
        """Make the error of a fault."""
        self.fault = fault
        self.status, sentence = _ANSWERS[fault]
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request without its body.

    Attributes:
        method: As it was written.
        target: Path and query; of an absolute target, only these.
        protocol: `HTTP/1.0` or `HTTP/1.1`.
        headers: Names and values, in order; of an absolute target, `Host` is its host.
    """

    method: str
    target: str
    protocol: str
    headers: Sequence[tuple[str, str]]


class HeadReader:
    """Reads one head."""

    __slots__ = ("_bytes", "_searched")

    def __init__(self) -> None:
        """Make a reader that has read nothing."""
        self._bytes = bytearray()
        self._searched = 0

    @property
    def has_begun(self) -> bool:
        """Whether anything came."""
        return bool(self._bytes)

    def receive(self, data: bytes, most_bytes: int) -> tuple[RequestHead, bytes] | None:
        """Take what came, and return the head and what came behind it; None until the head is complete.

        Raises:
            UnreadableRequestError: There is no head here, or it is longer than `most_bytes`.
        """
        self._bytes += data
        line_end = self._bytes.find(b"\n", 0, most_bytes)
        if line_end < 0:
            if bytes(self._bytes[:2]) not in (b"", b"\r") and not _TOKEN.match(self._bytes):
                raise UnreadableRequestError(Fault.NOT_HTTP)
            if len(self._bytes) > most_bytes:
                raise UnreadableRequestError(Fault.URI_TOO_LONG)
            return None
        if not self._searched:
            _read_request_line(bytes(self._bytes[: line_end + 1]))
        end = _END.search(self._bytes, max(line_end, self._searched), most_bytes)
        if end is None:
            if len(self._bytes) > most_bytes:
                raise UnreadableRequestError(Fault.TOO_LARGE)
            self._searched = max(line_end, len(self._bytes) - 2)
            return None
        return read_head(bytes(self._bytes[: end.end()])), bytes(self._bytes[end.end() :])


def read_head(head: bytes) -> RequestHead:
    """Read a head that is complete, with the empty line at its end.

    Raises:
        UnreadableRequestError: It can't be read.
    """
    first, *lines = head.split(b"\n")[:-2]
    method, target, protocol = _read_request_line(first + b"\n")
    if len(lines) > MAX_HEADERS:
        raise UnreadableRequestError(Fault.TOO_MANY_HEADERS)
    headers = [_read_header(line) for line in lines]
    if not head.endswith(b"\r\n\r\n"):
        raise UnreadableRequestError(Fault.HEADER)
    _check_body(method, headers)
    if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
        host, rest = absolute.groups(default="")
        headers = [("Host", host), *(header for header in headers if header[0].lower() != "host")]
        target = rest if rest.startswith("/") else f"/{rest}"
    elif not target.startswith("/") and target != "*" and method != "CONNECT":
        raise UnreadableRequestError(Fault.TARGET)
    return RequestHead(method, target, protocol, headers)


def _read_request_line(line: bytes) -> tuple[str, str, str]:
    if line.startswith(b"PROXY ") or line == b"\r\n":
        # The binary form begins with an empty line.
        raise UnreadableRequestError(Fault.PROXY_PROTOCOL)
    method, _, rest = line.removesuffix(b"\r\n").partition(b" ")
    target, _, protocol = rest.rpartition(b" ")
    version = _VERSION.fullmatch(protocol)
    if version is None or not line.endswith(b"\r\n") or not _TOKEN.fullmatch(method):
        raise UnreadableRequestError(Fault.NOT_HTTP)
    if version[1] != b"1":
        raise UnreadableRequestError(Fault.VERSION)
    if not _TARGET.fullmatch(target):
        raise UnreadableRequestError(Fault.TARGET)
    return method.decode(), target.decode(), "HTTP/1.0" if version[2] == b"0" else "HTTP/1.1"


def _read_header(line: bytes) -> tuple[str, str]:
    name, colon, value = line.removesuffix(b"\r").partition(b":")
    value = value.strip(b" \t")
    if not line.endswith(b"\r") or not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        raise UnreadableRequestError(Fault.HEADER)
    return name.decode(), value.decode("iso-8859-1")


def _check_body(method: str, headers: Sequence[tuple[str, str]]) -> None:
    framing = [(name.lower(), value) for name, value in headers]
    lengths = {value for name, value in framing if name == "content-length"}
    is_chunked = any(name == "transfer-encoding" for name, _ in framing)
    if any(not (value.isascii() and value.isdigit()) for value in lengths) or len(lengths) + is_chunked > 1:
        raise UnreadableRequestError(Fault.HEADER)
    if (is_chunked or lengths - {"0"}) and method not in _METHODS_WITH_BODY:
        raise UnreadableRequestError(Fault.BODY)
