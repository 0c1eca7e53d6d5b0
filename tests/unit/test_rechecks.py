"""Open connections are held to their tokens by the current rules, even after these change."""

from typing import Any, cast

import pytest

from relay.access.grants import Grant, TokenRole
from relay.access.rules import Access, AccessRules
from relay.server.rechecks import Rechecks
from relay.vocabulary.names import ChannelAddress

NOW = 1_000_000.0


class Verifier:
    """Accepts every text as a token that is valid for a minute."""

    sources = frozenset({"key"})

    def verify(self, _token: str) -> Grant:
        return Grant(frozenset({TokenRole.LISTEN}), ("*",), ("*",), "key", expires_at=NOW + 60)


class Connection:
    """The parts of a connection that a recheck needs."""

    id = "a connection"
    refused = False

    def refuse(self, _error: Exception) -> None:
        self.refused = True


@pytest.mark.parametrize(("before_seconds", "after_seconds"), [(300.0, 5.0), (5.0, 300.0), (5.0, 5.0)])
def test_the_leeway_in_force_is_what_holds(before_seconds: float, after_seconds: float) -> None:
    now = NOW
    access = Access(AccessRules(open_sessions=(), verifier=Verifier(), leeway_seconds=before_seconds), lambda: now)
    rechecks, connection = Rechecks(access), Connection()
    permit = access.admit(TokenRole.LISTEN, ChannelAddress("ev1"), "key")
    rechecks.watch(cast("Any", connection), permit)
    assert rechecks.replace(AccessRules(open_sessions=(), verifier=Verifier(), leeway_seconds=after_seconds)) == 0
    now = NOW + 60 + after_seconds - 0.5
    assert rechecks.close_expired() == 0
    now += 1
    assert rechecks.close_expired() == 1
    assert connection.refused
