"""Threats that no other test covers, and a check that every test named in docs/reliability.md exists."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.reliability.promises import PROMISES, THREATS
from tests.reliability.table import PAGE, ROOT, cells_of, chosen, read_cells, table
from tests.support.processes import relay_process

pytestmark = pytest.mark.timed


async def test_compression_is_never_negotiated() -> None:
    async with relay_process() as relay:
        address = urlsplit(relay.url)
        for target in (b"/v1/listen/ev1", b"/v1/broadcast/ev1"):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(
                b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-webkit-deflate-frame\r\n\r\n"
            )
            async with asyncio.timeout(10):
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 101 ")
            assert b"sec-websocket-extensions" not in head
            # A frame that claims to be compressed violates the protocol.
            writer.write(b"\xc2\x85" + bytes(4) + b"12345")
            async with asyncio.timeout(10):
                assert b"\x88" in await reader.read()
            writer.close()


@pytest.mark.parametrize("node", sorted({node for row in (*PROMISES, *THREATS) for node in row.tests}))
def test_every_test_that_is_named_is_there(node: str) -> None:
    path, *parts = node.split("::")
    source = (ROOT / path).read_text(encoding="utf-8")
    for part in parts:
        assert f"class {part}" in source or f"def {part}(" in source


def test_the_page_has_a_row_for_each_promise_and_each_threat() -> None:
    page = Path(PAGE).read_text(encoding="utf-8")
    for row in (*PROMISES, *THREATS):
        assert f"| {row.name} | {row.says} | {cells_of(row)} |" in page, "python -m tests.reliability writes it"


def test_what_was_not_run_keeps_what_the_page_says_of_it() -> None:
    results = {row.name: f"{number} passed (some day)" for number, row in enumerate(PROMISES) if row.tests}
    assert read_cells(table(("promise", "which means"), PROMISES, results)).items() >= results.items()


def test_rows_are_chosen_by_number_or_name() -> None:
    assert [row.name for row in chosen(PROMISES, ["13", "isolation"])] == ["1 Isolation", "13 Soak"]
    assert chosen(PROMISES, []) == list(PROMISES)
    with pytest.raises(ValueError, match="no row 'nothing'; there are: 1 Isolation; "):
        chosen(PROMISES, ["1", "nothing"])
