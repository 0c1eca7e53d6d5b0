"""What a client reports when it cannot connect."""

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.http11 import Response

from relay.client.transport.failures import handshake_error
from relay.protocol.messages import Goaway
from relay.vocabulary.errors import UnreachableError


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("", 0), ("soon", 0), ("-5", 0), ("7", 7), ("3600", 3600), ("3601", 3600), ("9" * 400, 3600), ("9" * 5000, 0)],
)
def test_nobody_is_sent_away_for_more_than_an_hour(said: str, seconds: int) -> None:
    refusal = InvalidStatus(Response(503, "Service Unavailable", Headers({"Retry-After": said})))
    error = handshake_error("ws://relay", refusal)
    assert isinstance(error, UnreachableError)
    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize(("said", "given"), [(-1, 0), (1500, 1500), (10**400, 3_600_000)])
def test_a_relay_that_goes_keeps_nobody_away_for_more_than_an_hour(said: int, given: int) -> None:
    assert Goaway.read({"type": "goaway", "reconnect_after_ms": said}) == Goaway(given)


@pytest.mark.parametrize(
    ("leads_to", "sentence"),
    [
        (
            "https://relay.example/v1/listen/ev1",
            "ws://relay redirects to wss://relay.example; use that address instead.",
        ),
        (
            "https://relay.example/relay/v1/listen/ev1/de",
            "ws://relay redirects to wss://relay.example/relay; use that address instead.",
        ),
        ("http://a:81/\x1b[31m", "ws://relay redirects to ws://a:81; use that address instead."),
        ("ftp://relay", "ws://relay is not the address of a relay, such as ws://127.0.0.1:8080."),
    ],
)
def test_a_redirect_that_is_not_followed_is_named(leads_to: str, sentence: str) -> None:
    assert str(handshake_error("ws://relay", InvalidURI(leads_to, "scheme isn't ws or wss"))) == sentence
