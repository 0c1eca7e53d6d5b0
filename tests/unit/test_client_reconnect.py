"""When a client reconnects, and after what delay."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.reconnect import Reconnect, Reconnecting, Reconnector
from relay.vocabulary.errors import CloseCode, ConnectionLostError, UnreachableError, may_reconnect

FINAL = {1000, 1002, 1003, 1007, 1008, 1009}


@given(st.integers(1000, 4999))
def test_the_table_of_close_codes_decides_who_comes_back(code: int) -> None:
    assert may_reconnect(code) == (code not in FINAL and code < 4500)


def test_every_code_that_a_relay_sends_is_decided_on_purpose() -> None:
    welcome = {code.name for code in CloseCode if may_reconnect(code)}
    assert welcome == {"GOING_AWAY", "CONNECTION_BROKE", "INTERNAL", "RESTARTING", "TOKEN_EXPIRED"}
    assert not welcome & {
        "SESSION_ENDED",
        "POLICY",
        "TOO_BIG",
        "TAKEN_OVER",
        "DISCONNECTED",
        "NOT_ALLOWED",
        "CHANNEL_BUSY",
    }


GONE = ConnectionLostError("Gone.")


def delays(reconnector: Reconnector, count: int, now: float = 0.0, error: ConnectionLostError = GONE) -> list[float]:
    return [reconnector.lost(error, now).delay_seconds for _ in range(count)]


@given(st.floats(0, 1, exclude_max=True))
def test_jitter_is_full_and_its_ceiling_doubles_up_to_the_longest(chance: float) -> None:
    ceilings = [1, 2, 4, 8, 10, 10, 10]
    assert delays(Reconnector(Reconnect(), lambda: chance), 7) == [ceiling * chance for ceiling in ceilings]


def test_a_client_that_tries_for_years_goes_on() -> None:
    reconnector = Reconnector(Reconnect(), lambda: 0.5)
    assert delays(reconnector, 5_000)[-1] == 5.0


@given(st.floats(0, 60))
def test_what_the_relay_asks_for_is_the_least(seconds: float) -> None:
    error = ConnectionLostError("Gone.", seconds)
    assert delays(Reconnector(Reconnect(), lambda: 0.0), 1, error=error) == [seconds]
    assert delays(Reconnector(Reconnect(), lambda: 0.5), 1, error=error) == [seconds + 0.5]


def test_a_connection_that_lived_begins_the_delays_anew_and_one_that_did_not_goes_on() -> None:
    reconnector = Reconnector(Reconnect(), lambda: 0.5)
    reconnector.connected(100.0)
    assert delays(reconnector, 3, 200.0) == [0.5, 1.0, 2.0]
    reconnector.connected(203.0)
    assert delays(reconnector, 1, 212.9) == [4.0], "it was there for less than the longest delay"
    reconnector.connected(220.0)
    assert delays(reconnector, 1, 230.0) == [0.5]


def test_tries_are_counted_and_say_why() -> None:
    reconnector = Reconnector(Reconnect(first_seconds=2.0), lambda: 0.25)
    assert reconnector.lost(GONE, 0.0) == Reconnecting(1, 0.5, "Gone.")
    assert reconnector.wait_seconds(0.2) == pytest.approx(0.3)
    assert reconnector.wait_seconds(0.6) == 0.0
    assert reconnector.lost(UnreachableError("Still gone."), 1.0) == Reconnecting(2, 1.0, "Still gone.")


def test_giving_up_is_counted_from_the_loss() -> None:
    reconnector = Reconnector(Reconnect(give_up_seconds=5.0), lambda: 0.5)
    reconnector.connected(0.0)
    reconnector.lost(GONE, 100.0)
    assert reconnector.lost(GONE, 104.0).delay_seconds == 1.0
    with pytest.raises(ConnectionLostError) as given_up:
        reconnector.lost(GONE, 105.0)
    assert given_up.value is GONE
    reconnector.connected(106.0)
    reconnector.lost(GONE, 110.0)


@pytest.mark.parametrize(("asked_seconds", "now"), [(120.0, 100.0), (0.0, 104.6)])
def test_a_client_gives_up_at_once_if_the_next_try_would_be_too_late(asked_seconds: float, now: float) -> None:
    reconnector = Reconnector(Reconnect(give_up_seconds=5.0), lambda: 0.5)
    assert reconnector.lost(GONE, 100.0).delay_seconds == 0.5
    with pytest.raises(ConnectionLostError):
        reconnector.lost(ConnectionLostError("Gone.", asked_seconds), now)


def test_without_a_policy_there_is_no_try() -> None:
    with pytest.raises(ConnectionLostError, match="Gone"):
        Reconnector(None).lost(GONE, 0.0)


@pytest.mark.parametrize(
    "times",
    [
        {"first_seconds": -1.0},
        {"first_seconds": 11.0},
        {"first_seconds": 2.0, "max_seconds": 1.0},
        {"give_up_seconds": -1.0},
        {"max_seconds": float("nan")},
    ],
)
def test_a_policy_that_is_none_is_refused(times: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="first_seconds <= max_seconds"):
        Reconnect(**times)


def test_a_crowd_that_was_cut_off_together_does_not_return_together() -> None:
    generator = Random(1)  # noqa: S311 - not a secret
    returns = sorted(delays(Reconnector(Reconnect(), generator.random), 1)[0] for _ in range(1000))
    assert max(later - earlier for earlier, later in pairwise(returns)) < 0.02
    assert returns[-1] > 0.99
