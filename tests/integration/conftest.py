"""Fixtures that several test files share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.support.live_session import Lateness


@pytest.fixture
async def lateness() -> AsyncIterator[Lateness]:
    lateness = Lateness()
    watching = asyncio.get_running_loop().create_task(lateness.watch())
    yield lateness
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
