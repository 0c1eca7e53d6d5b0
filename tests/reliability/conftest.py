"""Fixtures for the tests of the promises: the size of the load, and a record of measurements."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from tests.reliability.loads import LOADS, Load
from tests.support.live_session import Lateness

Figure = Callable[[str], None]


@pytest.fixture
def load(request: pytest.FixtureRequest) -> Load:
    """Return the load that `--load` selects."""
    return LOADS[request.config.getoption("--load")]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Record a measurement; `python -m tests.reliability` writes it into docs/reliability.md."""
    return lambda text: record_property("figure", text)


@pytest.fixture
async def lateness() -> AsyncIterator[Lateness]:
    lateness = Lateness()
    watching = asyncio.get_running_loop().create_task(lateness.watch())
    yield lateness
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
