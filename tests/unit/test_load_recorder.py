"""Seconds of a load test, out of the reports of its processes."""

from relay.loadtest.plan import LoadPlan
from relay.loadtest.recorder import OwnUse, Recorder
from relay.loadtest.worker_messages import Report


def test_a_rest_that_is_much_shorter_than_a_second_is_none() -> None:
    recorder = Recorder(LoadPlan("ws://x", listeners=1), None)
    recorder.begin(10.0, [Report()], OwnUse(0.0, None), None)
    for at in (11.0, 12.25, 13.0, 13.7):
        recorder.note(at, [Report(connected=1)], OwnUse(0.0, None), 0.0, None)
    seconds = recorder.result(100, None, None, ()).seconds
    assert [(second.at_seconds, second.length_seconds) for second in seconds] == [(1.0, 1.0), (2.25, 1.25), (3.0, 0.75)]
