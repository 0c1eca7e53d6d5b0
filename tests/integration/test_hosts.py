"""The addresses on which the relay listens, on machines with and without IPv6."""

import asyncio
import http.client
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from relay.server.addresses import can_listen
from tests.support.live_session import LOOPS
from tests.support.ports import free_port
from tests.support.processes import RelayProcess, relay_process, running

KEY = {"RELAY_BROADCAST_KEY": "open-sesame"}
FOUR, SIX = "127.0.0.1", "::1"
HAS_SIX = can_listen(SIX)


def is_healthy(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=20)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


ANY_PORT = "0"
"""The kernel chooses the relay's port; no client here reconnects to it."""


async def reached(relay: RelayProcess) -> set[str]:
    """Return the addresses of this machine on which the relay answers at its one port."""
    port = urlsplit(relay.url).port or 0
    return {host for host in (FOUR, SIX) if await asyncio.to_thread(is_healthy, host, port)}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("port", [ANY_PORT, "chosen"])
async def test_every_address_is_ipv4_and_ipv6_at_one_port(loop: str, port: str) -> None:
    settings = {"RELAY_SERVER_HOST": "*", "RELAY_SERVER_LOOP": loop, **KEY}
    arguments = ("--port", ANY_PORT) if port == ANY_PORT else ()
    async with relay_process(*arguments, **settings) as relay:
        assert await reached(relay) == ({FOUR, SIX} if HAS_SIX else {FOUR})
        assert urlsplit(relay.url).hostname == FOUR
        async with running("health", **settings, RELAY_SERVER_PORT=str(urlsplit(relay.url).port)) as health:
            assert await health.wait() == 0


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_family_alone_is_the_family_alone(loop: str) -> None:
    cases = {"0.0.0.0": {FOUR}} | ({"::": {SIX}} if HAS_SIX else {})  # noqa: S104 - the relay requires a secret
    for host, addresses in cases.items():
        async with relay_process("--host", host, RELAY_SERVER_LOOP=loop, **KEY) as relay:
            assert await reached(relay) == addresses


async def test_a_list_is_taken_from_options_environment_and_file(tmp_path: Path) -> None:
    # Both exist everywhere; without IPv6, the second loopback address stands in.
    second = SIX if HAS_SIX else "127.0.0.2"
    file = tmp_path / "relay.toml"
    file.write_text(f'[server]\nhost = ["{FOUR}", "{second}"]\n', encoding="utf-8")
    text = f"{FOUR}, {second}"
    for arguments, settings in (
        (("--host", text), {}),
        ((), {"RELAY_SERVER_HOST": text}),
        (("--config", str(file)), {}),
    ):
        async with relay_process(*arguments, **settings) as relay:
            port = urlsplit(relay.url).port or 0
            for host in (FOUR, second):
                assert await asyncio.to_thread(is_healthy, host, port)


@pytest.mark.parametrize("open_to_all", ["true", "false"])
async def test_one_address_that_others_can_reach_is_enough_to_need_a_key(open_to_all: str) -> None:
    arguments = ("--host", "127.0.0.1,0.0.0.0", "--port", str(free_port()))
    async with running("serve", *arguments, RELAY_BROADCAST_OPEN=open_to_all) as process:
        assert await process.wait() == 2
        assert len(process.lines) == 1
        assert process.lines[0].startswith("relay: server.host is 0.0.0.0, which other machines can reach, ")


@pytest.mark.parametrize(
    ("hosts", "what"),
    [
        ("0.0.0.0, 127.0.0.1", "0.0.0.0 and 127.0.0.1 share an address"),
        ("127.0.0.1, localhost", "127.0.0.1 and localhost share an address"),
        ("127.0.0.1, 127.0.0.1", "127.0.0.1 is listed twice"),
    ],
)
async def test_hosts_that_have_an_address_in_common_are_one_sentence(hosts: str, what: str) -> None:
    async with running("serve", "--host", hosts, "--port", str(free_port()), **KEY) as process:
        assert await process.wait() == 2
        assert process.lines == [f"relay: server.host is {hosts}, but {what}; remove one of them."]


async def test_an_address_that_is_in_use_is_named_with_all() -> None:
    async with relay_process() as relay, asyncio.timeout(60):
        port = str(urlsplit(relay.url).port)
        async with running("serve", "--host", "127.0.0.2,127.0.0.1", "--port", port) as second:
            assert await second.wait() == 2
            sentence = f"relay: The relay cannot listen on 127.0.0.2, 127.0.0.1, port {port}: address already in use. "
            assert second.lines == [sentence + "Choose another port with --port, or another address in server.host."]


async def test_a_host_that_holds_after_a_restart_only_opens_nothing_before(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('[server]\nhost = "0.0.0.0"\n[broadcast]\nkey = "open-sesame"\n', encoding="utf-8")
    async with relay_process("--config", str(file), RELAY_ACCESS_ALLOWED_ORIGINS="*") as relay:
        file.write_text('[server]\nhost = "127.0.0.1"\n[broadcast]\nopen = true\n', encoding="utf-8")
        relay.signal(signal.SIGHUP)
        told = await relay.event("the configuration was not reloaded; the previous one stays in force")
        assert "server.host is 0.0.0.0, which other machines can reach" in told["faults"]
