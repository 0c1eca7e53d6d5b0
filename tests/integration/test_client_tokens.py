"""A client asks for a new token at every connection; these tests also cover a provider that fails."""

import asyncio
from collections.abc import Callable

import pytest
from websockets.asyncio.server import ServerConnection

from relay.client import Reconnect, broadcast, listen
from tests.support.scripted_relay import HELLO, cut, in_turn, say, scripted

AT_ONCE = Reconnect(first_seconds=0.0, max_seconds=0.0)


def given_once() -> Callable[[], str]:
    """Return a function that supplies one token and fails when it is called again."""
    tokens = iter(["first"])

    def give() -> str:
        for token in tokens:
            return token
        raise OSError("the vault is sealed")

    return give


async def greet_and_cut(connection: ServerConnection) -> None:
    await say(connection, HELLO)
    await cut(connection)


async def test_a_broadcast_that_gets_no_token_ends_with_the_reason() -> None:
    async with (
        scripted(in_turn(greet_and_cut)) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", token=given_once(), reconnect=AT_ONCE) as broadcaster,
    ):
        with pytest.raises(OSError, match="the vault is sealed"):
            async for _event in broadcaster:
                pass
        with pytest.raises(OSError, match="the vault is sealed"):
            await broadcaster.send(b"\0\0")
        with pytest.raises(OSError, match="the vault is sealed"):
            await broadcaster.end()


async def test_a_listener_that_gets_no_token_ends_with_the_reason() -> None:
    async with (
        scripted(in_turn(greet_and_cut)) as url,
        asyncio.timeout(15),
        listen(url, "ev1", token=given_once(), reconnect=AT_ONCE) as listener,
    ):
        with pytest.raises(OSError, match="the vault is sealed"):
            async for _event in listener:
                pass
