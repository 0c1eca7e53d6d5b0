"""HTTP/1.1 without I/O: parse requests, serialize responses, and name what is wrong with a request.

`h11` parses headers and bodies, and knows whether a connection may stay open. Before `h11` sees a head, this module
limits its size and rejects what two parsers might interpret differently: line ends without CR, folded lines, control
characters, and two framings of one body.

Invariants: every sequence of bytes is a request, a fault, or incomplete. A head is buffered only up to its limit. A
body is never kept.

Source: RFC 9112 (HTTP/1.1), sections 2.2, 3 and 5 to 7.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import h11

from relay.vocabulary.errors import BadRequestError

MAX_HEADERS = 128
"""More than any browser or proxy sends. Parsing one takes a microsecond or two."""


class Fault(StrEnum):
    """Why a request is unreadable. The value is its name in the log."""

    URI_TOO_LONG = "uri_too_long"
    TOO_LARGE = "too_large"
    BODY_TOO_LARGE = "body_too_large"
    TOO_MANY_HEADERS = "too_many_headers"
    NOT_HTTP = "not_http"
    PROXY_PROTOCOL = "proxy_protocol"
    VERSION = "version"
    TARGET = "target"
    HEADER = "header"
    BODY = "body"
    CUT_SHORT = "cut_short"


_ANSWERS = {
    Fault.URI_TOO_LONG: (414, "The address is longer than limits.max_handshake_bytes allows."),
    Fault.TOO_LARGE: (
        431,
        "The request's headers are larger than limits.max_handshake_bytes allows; large cookies are the usual cause.",
    ),
    Fault.BODY_TOO_LARGE: (413, "The request's body is larger than limits.max_body_bytes allows."),
    Fault.TOO_MANY_HEADERS: (431, f"The request has more than {MAX_HEADERS} headers."),
    Fault.NOT_HTTP: (400, "This is not an HTTP request."),
    Fault.PROXY_PROTOCOL: (
        400,
        "The relay does not support the PROXY protocol; make the proxy send X-Forwarded-For instead.",
    ),
    Fault.VERSION: (505, "The relay supports only HTTP/1.1."),
    Fault.TARGET: (400, "The address is malformed; write characters other than ASCII as %XX."),
    Fault.HEADER: (400, "A header is malformed."),
    Fault.BODY: (400, "The request's body is malformed, or the request must not have one."),
    Fault.CUT_SHORT: (400, "The request ended before it was complete."),
}

_END = re.compile(rb"\n\r?\n")
_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_VERSION = re.compile(rb"HTTP/([0-9])(\.[0-9])?")
_MALFORMED = re.compile(rb"(?<!\r)\n|\r(?!\n)|\n[ \t]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_HOST = re.compile(rb"\nhost:", re.IGNORECASE)
_ABSOLUTE = re.compile(r"(?:http|ws)s?://([^/?#@]+)([/?].*)?", re.IGNORECASE)
_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class UnreadableRequestError(BadRequestError):
    """A request is unreadable.

    Attributes:
        fault: What is wrong with it.
        status: HTTP status of the response.
    """

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.status, sentence = _ANSWERS[fault]
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request without its body.

    Attributes:
        method: The method, as written.
        target: Path and query, also if the request's target is an absolute URL.
        protocol: `HTTP/1.0` or `HTTP/1.1`.
        headers: Names and values, in order. If the target is an absolute URL, `Host` is the URL's host.
    """

    method: str
    target: str
    protocol: str
    headers: Sequence[tuple[str, str]]


class Http1:
    """The server side of one connection: it reads a request, sends its response, and may then read the next request."""

    __slots__ = ("_body_bytes", "_h11", "_head", "_request", "_searched")

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER)
        self._begin()

    def _begin(self) -> None:
        self._head = bytearray()
        self._searched = 0
        self._request: RequestHead | None = None
        self._body_bytes = 0

    @property
    def has_begun(self) -> bool:
        """Whether a request has begun but is incomplete."""
        return bool(self._head)

    @property
    def rest(self) -> bytes:
        """The bytes that followed the request."""
        return self._h11.trailing_data[0]

    def receive(self, data: bytes, most_head_bytes: int, most_body_bytes: int) -> RequestHead | None:
        """Add received data, and return the request once it is complete. Its body is read and discarded.

        Raises:
            UnreadableRequestError: The data is not a request, or the request exceeds a limit.
        """
        if self._request is None:
            self._head += data
            length = self._find_end(most_head_bytes)
            if length is None:
                return None
            self._request = self._read_head(bytes(self._head[:length]), most_body_bytes)
            data = bytes(self._head[length:])
        if data:  # h11 takes empty data for the end of the stream.
            self._h11.receive_data(data)
        return self._request if self._has_read_body(most_body_bytes) else None

    def answer(self, status: int, reason: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
        """Serialize a response to the request or to unreadable data. The body is left out if the method is HEAD.

        If the connection stays open, the next request may follow.
        """
        said = self.begin_answer(status, reason, headers)
        is_for_head = self._head.startswith(b"HEAD ")
        if body and not is_for_head:
            said += self._h11.send(h11.Data(data=body)) or b""
        # If the request is unreadable, h11 may not know its method and expect a body. The connection ends anyway.
        if self._request is not None or not is_for_head:
            said += self._h11.send(h11.EndOfMessage()) or b""
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            self._begin()
        return said

    def begin_answer(self, status: int, reason: str, headers: Iterable[tuple[str, str]]) -> bytes:
        """Serialize the head of a response whose body goes on until the connection ends. The caller writes the body.

        In HTTP/1.1, the body has chunks.
        """
        encoded = [(name.encode(), value.encode("iso-8859-1")) for name, value in headers]
        return self._h11.send(h11.Response(status_code=status, reason=reason.encode(), headers=encoded)) or b""

    @property
    def is_open(self) -> bool:
        """Whether the connection is ready for its first or next request."""
        return self._h11.our_state is h11.IDLE

    def _find_end(self, most_bytes: int) -> int | None:
        """Return the length of the head, or None if it is incomplete. A malformed first line is rejected at once."""
        head = self._head
        line_end = head.find(b"\n", 0, most_bytes)
        if line_end < 0:
            if bytes(head[:2]) not in (b"", b"\r") and not _TOKEN.match(head):
                raise UnreadableRequestError(Fault.NOT_HTTP)
            if len(head) > most_bytes:
                raise UnreadableRequestError(Fault.URI_TOO_LONG)
            return None
        if not self._searched:
            _check_request_line(bytes(head[: line_end + 1]))
        end = _END.search(head, max(line_end, self._searched), most_bytes)
        if end is not None:
            return end.end()
        if len(head) > most_bytes:
            raise UnreadableRequestError(Fault.TOO_LARGE)
        self._searched = max(line_end, len(head) - 2)
        return None

    def _read_head(self, head: bytes, most_body_bytes: int) -> RequestHead:
        if head.count(b"\n") > MAX_HEADERS + 2:
            raise UnreadableRequestError(Fault.TOO_MANY_HEADERS)
        if _MALFORMED.search(head):
            raise UnreadableRequestError(Fault.HEADER)
        has_host = _HOST.search(head) is not None
        # h11 requires a Host, but a proxy may omit it for an HTTP/1.0 client.
        self._h11.receive_data(head if has_host else head[:-2] + b"Host:\r\n\r\n")
        try:
            request = self._h11.next_event()
        except h11.RemoteProtocolError:
            raise UnreadableRequestError(Fault.HEADER) from None
        assert isinstance(request, h11.Request)  # noqa: S101 - the head is complete
        method, target = request.method.decode(), request.target.decode()
        headers = [
            (name.decode(), value.decode("iso-8859-1"))
            for name, value in request.headers
            if has_host or name != b"host"
        ]
        _check_body(method, headers, most_body_bytes)
        if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
            host, rest = absolute.groups(default="")
            headers = [("host", host), *(header for header in headers if header[0] != "host")]
            target = rest if rest.startswith("/") else f"/{rest}"
        elif not target.startswith("/") and target != "*" and method != "CONNECT":
            raise UnreadableRequestError(Fault.TARGET)
        return RequestHead(method, target, f"HTTP/{request.http_version.decode()}", headers)

    def _has_read_body(self, most_bytes: int) -> bool:
        """Read to the end of the body.

        A client that expects "100 Continue" gets its response without sending a body.
        """
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError:
                raise UnreadableRequestError(Fault.BODY) from None
            if isinstance(event, h11.Data):
                self._body_bytes += len(event.data)
                if self._body_bytes > most_bytes:
                    raise UnreadableRequestError(Fault.BODY_TOO_LARGE)
            else:
                return isinstance(event, h11.EndOfMessage) or self._h11.they_are_waiting_for_100_continue


def _check_request_line(line: bytes) -> None:
    if line.startswith(b"PROXY ") or line == b"\r\n":
        # The binary form of the PROXY protocol begins with an empty line.
        raise UnreadableRequestError(Fault.PROXY_PROTOCOL)
    method, _, rest = line.removesuffix(b"\r\n").partition(b" ")
    target, _, protocol = rest.rpartition(b" ")
    version = _VERSION.fullmatch(protocol)
    if version is None or not line.endswith(b"\r\n") or not _TOKEN.fullmatch(method):
        raise UnreadableRequestError(Fault.NOT_HTTP)
    if version[1] != b"1" or version[2] is None:
        raise UnreadableRequestError(Fault.VERSION)
    if not _TARGET.fullmatch(target):
        raise UnreadableRequestError(Fault.TARGET)


def _check_body(method: str, headers: Sequence[tuple[str, str]], most_bytes: int) -> None:
    """Reject two framings of one body, a body that the method does not allow, and a length over the limit."""
    lengths = {value for name, value in headers if name == "content-length"}
    is_chunked = any(name == "transfer-encoding" for name, _ in headers)
    if lengths and is_chunked:
        raise UnreadableRequestError(Fault.HEADER)
    if (is_chunked or lengths - {"0"}) and method not in _METHODS_WITH_BODY:
        raise UnreadableRequestError(Fault.BODY)
    if any(int(length) > most_bytes for length in lengths):
        raise UnreadableRequestError(Fault.BODY_TOO_LARGE)
