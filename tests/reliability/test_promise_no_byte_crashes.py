"""Promise 9: no input crashes the relay. This search is short; `python -m tests.fuzz --minutes 30` is the long one."""

import random
import socket
import struct
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.conversation import Conversation
from tests.fuzz.server import fuzz_relay
from tests.fuzz.targets import SEEDS, TARGETS, found
from tests.reliability.conftest import Figure
from tests.support.live_session import LOOPS
from tests.support.processes import relay_process

pytestmark = pytest.mark.timed

INPUTS = 300
SECONDS = 5.0

EDITS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 8), st.binary(max_size=8)), max_size=5)


def edited(seed: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Replace parts of a valid input."""
    data = bytearray(seed)
    for at, length, replacement in edits:
        data[at % (len(data) + 1) : at % (len(data) + 1) + length] = replacement
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_is_read_from_strangers_raises(name: str, figure: Figure) -> None:
    inputs = st.binary(max_size=200) | st.builds(edited, st.sampled_from(SEEDS[name]), EDITS)

    @settings(max_examples=INPUTS, deadline=None)
    @given(inputs)
    def search(data: bytes) -> None:
        TARGETS[name](data)

    for path in found(name):
        TARGETS[name](path.read_bytes())
    for seed in SEEDS[name]:
        TARGETS[name](seed)
    search()
    once = len(found(name))
    figure(f"{name}: {INPUTS} inputs (altered valid ones and random bytes), and {once} that crashed an earlier version")


@pytest.mark.parametrize("loop", LOOPS)
async def test_no_conversation_crashes_a_running_relay(loop: str, figure: Figure) -> None:
    numbers = iter(random.Random(loop).sample(range(1 << 32), 100_000))  # noqa: S311 - repeatable, not a secret
    count = await fuzz_relay(loop, numbers, SECONDS)
    assert count > 50
    figure(f"{loop}: {count} conversations, right, nearly right and hostile; a listener beside them lost 0 frames")


@pytest.mark.parametrize("loop", LOOPS)
async def test_who_is_gone_when_its_request_is_read_is_no_error(loop: str) -> None:
    async with relay_process(RELAY_SERVER_LOOP=loop) as relay:
        address = urlsplit(relay.url)
        for _ in range(100):
            with socket.create_connection((address.hostname, address.port or 0), timeout=10) as sock:
                sock.sendall(b"GET /v1/listen/ev1 HTTP/1.1\r\nHost: x\r\n\r\n")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert await relay.terminate() == 0
        assert "Traceback" not in relay.text


def test_a_conversation_follows_from_its_number() -> None:
    assert Conversation(7).pieces == Conversation(7).pieces != Conversation(8).pieces
