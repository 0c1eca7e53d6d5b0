"""What the tests of the promises share: how much load they make, and where they note what they measured."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from tests.reliability.loads import LOADS, Load
from tests.support.live_session import Lateness

Figure = Callable[[str], None]


@pytest.fixture
def load(request: pytest.FixtureRequest) -> Load:
    """What `--load` asks for."""
    return LOADS[request.config.getoption("--load")]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Note what was measured; `python -m tests.reliability` writes it into docs/reliability.md."""
    return lambda text: record_property("figure", text)


@pytest.fixture
async def lateness() -> AsyncIterator[Lateness]:
    lateness = Lateness()
    watching = asyncio.get_running_loop().create_task(lateness.watch())
    yield lateness
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
