"""The keys that a relay makes for itself when it cannot write a file, as in a read-only container."""

import logging

import pytest
from pydantic import SecretStr

from relay.access.local_key import LocalKey, find_key
from relay.cli.app import running_relay
from relay.settings.settings import BroadcastSettings, ServerSettings, Settings
from tests.support.ports import free_port

WARNING = "the relay could not store its keys for other commands"


@pytest.fixture(autouse=True)
def _no_place_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", find_none)


def test_no_key_is_found() -> None:
    assert find_key({}, LocalKey.BROADCAST, 8080) is None


@pytest.mark.parametrize(("key", "warnings"), [(None, [WARNING]), (SecretStr("open-sesame"), [])])
async def test_a_relay_runs_and_warns_only_of_keys_that_it_made(
    key: SecretStr | None, warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="relay"):
        async with running_relay(
            Settings(server=ServerSettings(port=free_port()), broadcast=BroadcastSettings(key=key))
        ):
            assert [record.getMessage() for record in caplog.records if record.name == "relay.cli.app"] == warnings
