import pytest

from relay.cli.client import ConnectionTeller
from relay.client import ErrorNotice, Reconnecting

EXPIRED = "The token has expired."


def test_what_the_relay_objected_to_is_not_repeated_as_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    connection = ConnectionTeller()
    connection.objects(ErrorNotice(4001, EXPIRED))
    connection.lost(Reconnecting(1, 0.5, EXPIRED))
    assert capsys.readouterr().err == f"the relay says: {EXPIRED}\nTrying again in 0.5 s.\n"


def test_attempts_that_fail_for_one_reason_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    connection = ConnectionTeller()
    for reason in ("It was lost.", "It was lost.", "Nothing listens."):
        connection.lost(Reconnecting(1, 1.0, reason))
    connection.back("")
    connection.lost(Reconnecting(1, 1.0, "Nothing listens."))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" Trying")[0] for line in lines] == [
        "It was lost.",
        "Nothing listens.",
        "connected again",
        "Nothing listens.",
    ]
