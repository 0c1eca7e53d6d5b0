"""HTTP/1.1 without I/O: requests are read in any pieces or refused with a reason, then answered."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.protocol.http1 import Fault, Http1, RequestHead, UnreadableRequestError

MOST_BYTES = 200
WORDS = [b"GET", b"POST", b"HEAD", b" ", b"/a", b"http://h/p?q", b"HTTP/1.1", b"HTTP/2.0", b"GET /a HTTP/1.1\r\n"]
HEADERS = [b"Host: x", b":", b"Content-Length: 1", b"Transfer-Encoding: chunked", b"x" * 90]
BODIES = [b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\n{}\r\n", b"0\r\n\r\n", b"f;x=1"]
PIECES = st.sampled_from([*WORDS, *HEADERS, *BODIES, b"\r\n", b"\n", b"\r", b"\xc3\xa9", b"\x00"])
CHUNKED = BODIES[0]
CLOSE = [("Connection", "close"), ("Content-Length", "2")]


def read(parts: list[bytes], most_body_bytes: int = 10) -> tuple[RequestHead, bytes] | Fault | None:
    http = Http1()
    for number, part in enumerate(parts):
        try:
            found = http.receive(part, MOST_BYTES, most_body_bytes)
        except UnreadableRequestError as error:
            said = http.answer(error.status, "", CLOSE, b"no")
            assert said.startswith(b"HTTP/1.1 ")
            assert said.endswith(b"\r\n\r\n" if b"".join(parts).startswith(b"HEAD ") else b"\r\n\r\nno")
            assert not http.is_open
            return error.fault
        if found is not None:
            return found, http.rest + b"".join(parts[number + 1 :])
    return None


@given(st.lists(PIECES, max_size=12).map(b"".join))
@example(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nbehind")
@example(b"GET /a HTTP/1.1\r\n\r\n")
@example(CHUNKED + b"2\r\n{}\r\n0\r\n\r\nbehind")
@example(b"HEAD a HTTP/1.1\r\n\r\n")
@example(b"HEAD /a HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
@example(b"HEAD /a HTTP/2.0\r\n\r\n")
@example(b"x" * MOST_BYTES)
def test_the_pieces_make_no_difference(request: bytes) -> None:
    whole = read([request])
    if whole is None and not request.startswith(b"POST"):
        assert len(request) <= MOST_BYTES
    assert read([request[index : index + 1] for index in range(len(request))]) == whole


def test_an_absolute_target_is_its_path_on_its_host() -> None:
    for target, path in (("http://a.example/p?q", "/p?q"), ("HTTPS://a.example", "/"), ("ws://a.example?q", "/?q")):
        found = read([f"GET {target} HTTP/1.1\r\nHost: b.example\r\nA: 1\r\n\r\n".encode()])
        assert found == (RequestHead("GET", path, "HTTP/1.1", [("host", "a.example"), ("a", "1")]), b"")
    assert read([b"GET http://user@a.example/ HTTP/1.1\r\nHost: x\r\n\r\n"]) is Fault.TARGET


@pytest.mark.parametrize(
    ("request_bytes", "fault"),
    [
        (CHUNKED + b"b\r\nhello world\r\n", Fault.BODY_TOO_LARGE),
        (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n", Fault.BODY_TOO_LARGE),
        (CHUNKED + b"no length\r\n", Fault.BODY),
        (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Fault.HEADER),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", Fault.BODY),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", Fault.HEADER),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nX: a\x06b\r\n\r\n", Fault.HEADER),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", Fault.HEADER),
        (b"GET /a HTTP/1\r\n\r\n", Fault.VERSION),
        (b"GET /a HTTP/1.1\r\nHost: x\n\r\n", Fault.HEADER),
    ],
)
def test_what_two_readers_might_understand_in_two_ways_is_refused(request_bytes: bytes, fault: Fault) -> None:
    assert read([request_bytes]) is fault


def test_a_request_may_have_no_host() -> None:
    for version in ("HTTP/1.0", "HTTP/1.1"):
        found = read([f"GET /a {version}\r\nA: 1\r\n\r\n".encode()])
        assert found == (RequestHead("GET", "/a", version, [("a", "1")]), b"")


def test_a_body_is_read_and_the_next_request_follows() -> None:
    http = Http1()
    for body in (b"2\r\n{}\r\n", b"0\r\n\r\n"):
        assert http.receive(CHUNKED, MOST_BYTES, 10) is None
        found = http.receive(body + b"0\r\n\r\n" * (body[:1] == b"2"), MOST_BYTES, 10)
        assert found is not None
        assert found.method == "POST"
        assert http.answer(200, "OK", [("Content-Length", "2")], b"ok").endswith(b"\r\n\r\nok")
        assert http.is_open
        assert not http.has_begun
    assert http.receive(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", MOST_BYTES, 10) is not None
    assert b"Connection: close" in http.answer(200, "OK", [("Content-Length", "0")], b"")
    assert not http.is_open


def test_a_client_that_asks_whether_to_send_its_body_is_answered_at_once() -> None:
    http = Http1()
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    assert http.receive(head, MOST_BYTES, 10) is not None
    http.answer(405, "Method Not Allowed", CLOSE, b"no")
    assert not http.is_open
