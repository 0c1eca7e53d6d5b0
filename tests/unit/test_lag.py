"""The relay's lag: the larger of the event loop's lateness and the time to reach all listeners."""

import pytest

from relay.hub.lag import SAMPLE_SECONDS, LagMeter


class Relay:
    """The relay, as the lag meter sees it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.busy = 0.0
        self.meter = LagMeter(lambda: self.now, lambda: self.busy)

    def go_on(self, seconds: float, *, late: float = 0.0) -> float:
        """Let time pass while every sample is `late` seconds late. Return the lag in milliseconds."""
        end = self.now + seconds
        while self.now < end:
            self.now += SAMPLE_SECONDS + late
            self.meter.sample()
        return self.meter.lag_ms


def test_nothing_is_late() -> None:
    assert Relay().go_on(10) == pytest.approx(0, abs=1e-6)


def test_a_loop_that_is_late_all_the_time() -> None:
    relay = Relay()
    assert relay.go_on(10, late=0.3) == pytest.approx(300, abs=5)
    assert relay.go_on(10) < 5


def test_frames_that_are_long_under_way() -> None:
    relay = Relay()
    relay.busy = 0.7
    assert relay.go_on(0.2) < 100, "a hiccup is not a state"
    assert relay.go_on(10) == pytest.approx(700, abs=10)
