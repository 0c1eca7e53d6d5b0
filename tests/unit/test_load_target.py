import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from relay.loadtest.target import MAX_RESPONSE_BYTES, Expect, JoinError, Target, read_upgrade, upgrade_request

TARGET = Target("127.0.0.1", 8080, "/v1/listen/s", "relay.example:8080")


def answer_of_websockets(target: Target, subprotocol: str | None = None) -> bytes:
    """Return the answer of the `websockets` library to our request."""
    server = ServerProtocol(subprotocols=None if subprotocol is None else [Subprotocol(subprotocol)])
    server.receive_data(upgrade_request(target))
    (request,) = server.events_received()
    server.send_response(server.accept(request))  # type: ignore[arg-type] # the first event is a request
    return b"".join(server.data_to_send())


@given(st.binary(max_size=50), st.integers(0, 10_000))
def test_an_upgrade_is_read_wherever_it_is_cut(more: bytes, cut: int) -> None:
    response = answer_of_websockets(TARGET, "relay.v1")
    assert read_upgrade(response + more, Expect.RELAY_V1, is_all=False) == more
    assert read_upgrade(response[: cut % len(response)], Expect.RELAY_V1, is_all=False) is None


def test_a_server_that_adds_no_header_is_not_asked_for_a_subprotocol() -> None:
    target = Target("::1", 80, "/", "x", expect=Expect.STAMPED)
    assert b"Sec-WebSocket-Protocol" not in upgrade_request(target)
    assert read_upgrade(answer_of_websockets(target), Expect.STAMPED, is_all=False) == b""


def test_a_stream_is_asked_for_without_an_upgrade() -> None:
    target = Target("127.0.0.1", 80, "/music", "x", expect=Expect.STREAM)
    assert upgrade_request(target) == b"GET /music HTTP/1.0\r\nHost: x\r\n\r\n"
    assert read_upgrade(b"HTTP/1.0 200 OK\r\nServer: Icecast\r\n\r\nabc", Expect.STREAM, is_all=False) == b"abc"
    with pytest.raises(JoinError, match="HTTP 101"):
        read_upgrade(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", Expect.STREAM, is_all=True)


def http(status: str, body: str = "", length: int | None = None) -> bytes:
    size = len(body.encode()) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n\r\n{body}".encode()


REFUSALS = {
    "a status with its sentence": (
        http("401 Unauthorized", "The key is missing.\nmore"),
        "HTTP 401 The key is missing.",
    ),
    "a body cut short": (http("503 Service Unavailable", "Later.", 100), "HTTP 503 Later."),
    "no body": (http("404 Not Found"), "HTTP 404"),
    "something that steers a terminal": (http("400 Bad", "a\x1b[2Jb"), "HTTP 400 a?[2Jb"),
    "not HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", "the answer is not HTTP"),
    "never ending": (b"x" * (MAX_RESPONSE_BYTES + 1), "the answer is not HTTP"),
    "nothing": (b"", "the server closed the connection without an answer"),
    "another key's answer": (http("101 Switching Protocols"), "the answer is not that of a WebSocket server"),
    "no relay": (answer_of_websockets(TARGET), "the server does not speak relay.v1"),
}


@pytest.mark.parametrize(("response", "reason"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_is_a_short_reason(response: bytes, reason: str) -> None:
    with pytest.raises(JoinError) as refused:
        read_upgrade(response, Expect.RELAY_V1, is_all=True)
    assert str(refused.value) == reason


def test_a_body_is_waited_for() -> None:
    assert read_upgrade(http("503 Busy", "La", 6), Expect.RELAY_V1, is_all=False) is None


def test_the_request_is_what_a_library_would_send() -> None:
    client = ClientProtocol(parse_uri("ws://relay.example:8080/v1/listen/s"), subprotocols=[Subprotocol("relay.v1")])
    expected = client.connect().headers
    lines = upgrade_request(TARGET).decode().split("\r\n")
    ours = dict(line.split(": ", 1) for line in lines[1:] if line)
    assert lines[0] == "GET /v1/listen/s HTTP/1.1"
    assert {name for name, _ in expected.raw_items()} - {"Sec-WebSocket-Extensions"} <= set(ours)
    for name in ("Host", "Upgrade", "Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol"):
        assert ours[name] == expected[name]
