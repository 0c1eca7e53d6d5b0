"""Heads of requests: read in whatever pieces they come, or refused for a reason."""

from hypothesis import example, given
from hypothesis import strategies as st

from relay.protocol.request_head import Fault, HeadReader, RequestHead, UnreadableRequestError

MOST_BYTES = 200
WORDS = [b"GET", b"POST", b" ", b"/a", b"http://h/p?q", b"HTTP/1.1", b"HTTP/2.0", b"GET /a HTTP/1.1\r\n"]
HEADERS = [b"Host: x", b":", b"Content-Length: 1", b"Transfer-Encoding: chunked", b"x" * 90]
PIECES = st.sampled_from([*WORDS, *HEADERS, b"\r\n", b"\n", b"\r", b"\xc3\xa9", b"\x00"])


def read(parts: list[bytes]) -> tuple[RequestHead, bytes] | Fault | None:
    reader = HeadReader()
    for number, part in enumerate(parts):
        try:
            found = reader.receive(part, MOST_BYTES)
        except UnreadableRequestError as error:
            return error.fault
        if found is not None:
            head, rest = found
            return head, rest + b"".join(parts[number + 1 :])
    return None


@given(st.lists(PIECES, max_size=12).map(b"".join))
@example(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nbehind")
@example(b"GET /a HTTP/1.1\r\n\r\n")
@example(b"x" * MOST_BYTES)
def test_the_pieces_make_no_difference(request: bytes) -> None:
    whole = read([request])
    if whole is None:
        assert len(request) <= MOST_BYTES
    assert read([request[index : index + 1] for index in range(len(request))]) == whole


def test_an_absolute_target_is_its_path_on_its_host() -> None:
    for target, path in (("http://a.example/p?q", "/p?q"), ("HTTPS://a.example", "/"), ("ws://a.example?q", "/?q")):
        found = read([f"GET {target} HTTP/1.1\r\nHost: b.example\r\nA: 1\r\n\r\n".encode()])
        assert found == (RequestHead("GET", path, "HTTP/1.1", [("Host", "a.example"), ("A", "1")]), b"")
    assert read([b"GET http://user@a.example/ HTTP/1.1\r\n\r\n"]) is Fault.TARGET
