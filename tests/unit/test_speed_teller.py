"""What `relay broadcast` reports when audio does not arrive in real time, as seen by the pipe and by the relay."""

import pytest

from relay.cli.progress import SpeedTeller
from relay.vocabulary.audio import AudioFormat

ANNOUNCED = AudioFormat(rate=24_000)
SLOW = 2 / 3
FRAME_SECONDS = 0.02


def pipe_slowly(teller: SpeedTeller, since: float, until: float) -> None:
    """Feed the teller audio that arrives through a pipe at two thirds of real time."""
    now = since
    while now < until:
        teller.note(FRAME_SECONDS * SLOW, now, is_held=False)
        now += FRAME_SECONDS


def test_the_relay_waits_for_what_the_pipe_shows(capsys: pytest.CaptureFixture[str]) -> None:
    teller = SpeedTeller(ANNOUNCED)
    pipe_slowly(teller, 0, 9)
    teller.note_relay(SLOW)
    assert capsys.readouterr().err == "", "the pipe has not shown yet whether it is the cause"
    pipe_slowly(teller, 9, 14)
    (line,) = capsys.readouterr().err.splitlines()
    assert "it looks like 16000 Hz, mono" in line


def test_a_pipe_in_real_time_leaves_the_network_as_the_cause(capsys: pytest.CaptureFixture[str]) -> None:
    teller = SpeedTeller(ANNOUNCED)
    now = 0.0
    while now < 20:
        teller.note(FRAME_SECONDS, now, is_held=False)
        if 10 <= now < 10 + FRAME_SECONDS:
            teller.note_relay(SLOW)
        now += FRAME_SECONDS
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("this machine or the network is too slow")
    teller.note_relay(None)
    assert capsys.readouterr().err == "the audio arrives in real time again\n"


def test_without_a_pipe_the_relay_is_believed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    SpeedTeller(ANNOUNCED).note_relay(SLOW)
    assert "this machine or the network is too slow" in capsys.readouterr().err
