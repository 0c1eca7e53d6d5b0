"""Chooses the event loop of the relay: asyncio's own or uvloop."""

import asyncio
import importlib
from collections.abc import Callable
from typing import Literal

from relay.vocabulary.errors import ConfigurationError

LoopChoice = Literal["auto", "asyncio", "uvloop"]


def loop_factory(choice: LoopChoice) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of the event loop.

    Args:
        choice: `auto` is asyncio's own loop. It has the better tail latency when a core is saturated, and otherwise
            costs the same (docs/performance.md).

    Raises:
        ConfigurationError: The choice is uvloop, which is not installed.
    """
    if choice != "uvloop":
        return asyncio.new_event_loop
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError as error:
        raise ConfigurationError(
            "server.loop is uvloop, which is not installed. Run pip install 'audio-relay[uvloop]', or choose asyncio."
        ) from error
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
