"""How a node gets into NATS, and the one sentence that it says when it does not."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.cluster import nats_bus
from relay.cluster.nats_bus import open_bus
from relay.settings.settings import Settings
from relay.vocabulary.errors import ConfigurationError
from tests.support.certificates import make_certificate
from tests.support.nats import ask_server, cluster_settings, nats, nkey_of, operator_mode, until, user_seed
from tests.support.ports import free_port
from tests.support.processes import relay_process

ROOT = Path(__file__).parents[2]
USER = 'authorization { users: [ { user: "relay", password: "right-word" } ] }'


async def refusal(url: str, **cluster: Any) -> str:
    """Return the sentence of a node that does not get in."""
    with pytest.raises(ConfigurationError) as refused:
        async with open_bus(cluster_settings(url, **cluster)):
            pass
    return str(refused.value)


async def gets_in(url: str, **cluster: Any) -> bool:
    async with open_bus(cluster_settings(url, **cluster)) as bus:
        await bus.publish_stored("audio.s.c", b"x")
        return bus.is_up


async def test_a_user_with_a_password(tmp_path: Path) -> None:
    async with nats(tmp_path, USER) as server:
        assert await gets_in(server.url_of("relay", "right-word"))
        sentence = await refusal(server.url_of("relay", "wrong-word"))
        assert sentence == (
            f"NATS at {server.url} did not accept the user, token or key of this relay. See cluster.url, "
            "cluster.credentials_file and cluster.nkey_seed_file."
        )
        assert "did not accept" in await refusal(server.url)


async def test_a_user_with_the_documented_permissions(tmp_path: Path) -> None:
    page = (ROOT / "docs/nats.md").read_text(encoding="utf-8")
    block = page.partition("publish:")[2].partition("```")[0]
    publish, subscribe = (" ".join(f'"{subject}"' for subject in part.split()) for part in block.split("subscribe:"))
    allowed = f"permissions: {{ publish: [{publish}], subscribe: [{subscribe}] }}".replace('" "', '", "')
    async with nats(tmp_path, USER.replace('"right-word"', f'"right-word", {allowed}')) as server:
        settings = cluster_settings(server.url_of("relay", "right-word"))
        async with open_bus(settings) as a, open_bus(settings) as b:
            revision = await a.write("s.c", b"1", None)
            await a.delete("s.c", revision)
            await a.publish_stored("audio.s.c", b"x")
            await a.publish_stored("held.s.c", b"x")
            assert await b.fetch("audio.s.c") == await b.fetch("held.s.c") == [b"x"]

            async def reply(question: bytes) -> bytes:
                return question

            await b.answer("q", reply)
            await until(lambda: len(a.nodes) == 2)
            assert await a.ask_one(b.node_id, "q", b"x", 10) == b"x"
            assert (await a.ask("q", b"x", 1)).keys() == {b.node_id}
            await a.hear("news", lambda _: None)
        log = server.log.read_text(encoding="utf-8")
        assert "ermissions" not in log, log


async def test_a_token(tmp_path: Path) -> None:
    async with nats(tmp_path, 'authorization { token: "right-word" }') as server:
        address = server.url.removeprefix("nats://")
        assert await gets_in(f"nats://right-word@{address}")
        assert "did not accept" in await refusal(f"nats://wrong-word@{address}")


async def test_an_nkey(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.nk", tmp_path / "wrong.nk"
    right.write_bytes(user_seed())
    wrong.write_bytes(user_seed())
    async with nats(tmp_path, f"authorization {{ users: [ {{ nkey: {nkey_of(right.read_bytes())} }} ] }}") as server:
        assert await gets_in(server.url, nkey_seed_file=str(right))
        assert "did not accept" in await refusal(server.url, nkey_seed_file=str(wrong))


async def test_credentials(tmp_path: Path) -> None:
    lines, credentials = operator_mode(tmp_path)
    (tmp_path / "other").mkdir()
    _, others = operator_mode(tmp_path / "other")
    async with nats(tmp_path, lines) as server:
        assert await gets_in(server.url, credentials_file=str(credentials))
        assert "did not accept" in await refusal(server.url, credentials_file=str(others))


async def test_tls_with_an_authority_and_client_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_bus, "START_SECONDS", 1.5)
    server_pair, client_pair = make_certificate(tmp_path, "server"), make_certificate(tmp_path, "client")
    tls = f"""tls {{
        cert_file: "{server_pair.certificate}", key_file: "{server_pair.key}"
        ca_file: "{client_pair.certificate}", verify: true
    }}"""
    own = {"tls_certificate": str(client_pair.certificate), "tls_key": str(client_pair.key)}
    async with nats(tmp_path, tls, scheme="tls") as server:
        assert await gets_in(server.url, tls_ca_file=str(server_pair.certificate), **own)
        assert "certificate" in await refusal(server.url, **own)
        assert "was not ready" in await refusal(server.url, tls_ca_file=str(server_pair.certificate))


@asynccontextmanager
async def imitation(**info: object) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a server that sends a given greeting. Yield its address and what it receives."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        described = {"server_id": "x", "max_payload": 1024, "proto": 1, "headers": True, **info}
        writer.write(b"INFO " + json.dumps(described).encode() + b"\r\n")
        while line := await reader.readline():
            received.append(line)
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        yield f"127.0.0.1:{port}", received


async def test_an_old_server() -> None:
    async with imitation(version="2.9.10") as (address, _):
        sentence = await refusal(f"nats://{address}")
    assert sentence == f"NATS at nats://{address} has version 2.9.10, and the relay needs nats-server 2.11 or newer."


async def test_a_password_is_not_sent_unencrypted_to_a_tls_address() -> None:
    """nats-py would send it: it encrypts only if the server asks for it."""
    async with imitation(version="2.11.0") as (address, received):
        sentence = await refusal(f"tls://relay:right-word@{address}")
        assert sentence.startswith(f"NATS at tls://{address} offers no TLS.")
        assert b"right-word" not in b"".join(received)


async def test_a_server_without_jetstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_bus, "START_SECONDS", 1.5)
    async with nats(tmp_path, jetstream=False) as server:
        sentence = await refusal(server.url)
    assert sentence.startswith(f"NATS at {server.url} has no JetStream. Start nats-server with --jetstream")


async def test_too_many_replicas(tmp_path: Path) -> None:
    async with nats(tmp_path) as server:
        sentence = await refusal(server.url, replicas=3)
    assert sentence.startswith(f"NATS at {server.url} does not accept the stream relay_audio with cluster.replicas = 3")


async def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_bus, "START_SECONDS", 1.5)
    port = free_port()
    sentence = await refusal(f"nats://relay:right-word@127.0.0.1:{port}")
    assert sentence.startswith(
        f"NATS at nats://127.0.0.1:{port} was not ready within 1.5 s. Start it, or correct cluster.url. "
    )
    assert "refused" in sentence
    assert "right-word" not in sentence


async def test_a_server_that_starts_later_than_the_relay(tmp_path: Path) -> None:
    async with nats(tmp_path) as server:
        await server.kill()
        bus = open_bus(cluster_settings(server.url))
        entering = asyncio.ensure_future(bus.__aenter__())
        await asyncio.sleep(1)
        await server.start()
        await entering
        assert bus.is_up
        await bus.__aexit__(None, None, None)


async def test_settings_that_differ_are_adapted(tmp_path: Path) -> None:
    async with nats(tmp_path) as server, open_bus(cluster_settings(server.url)) as old:
        await old.write("s.c", b"kept", None)
        async with open_bus(cluster_settings(server.url, history_seconds=30)) as new:
            assert new.is_up
            record = await new.read("s.c")
            assert record is not None
        answer = await ask_server(server.url, "$JS.API.STREAM.INFO.relay_audio")
        assert answer["config"]["max_age"] == (30 + 60 + 10) * 1_000_000_000


async def test_nodes_that_begin_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine, eight nodes that each want another history take long to agree.
    monkeypatch.setattr(nats_bus, "START_SECONDS", 120.0)
    async with nats(tmp_path) as server:
        await begin_at_once([cluster_settings(server.url, history_seconds=number) for number in range(1, 9)])


async def test_nodes_that_begin_at_once_where_the_audio_has_room_only_once(tmp_path: Path) -> None:
    """While the server creates the stream for one node, it refuses to create it for another."""
    memory = f'jetstream {{ store_dir: "{tmp_path / "store"}", max_memory_store: 640MiB }}'
    async with nats(tmp_path, memory, jetstream=False) as server:
        await begin_at_once([cluster_settings(server.url) for _ in range(8)])


async def begin_at_once(nodes: Sequence[Settings]) -> None:
    several = [open_bus(settings) for settings in nodes]
    await asyncio.gather(*(bus.__aenter__() for bus in several))
    await until(lambda: all(len(bus.nodes) == len(several) for bus in several))
    await asyncio.gather(*(bus.__aexit__(None, None, None) for bus in several))


async def test_a_relay_on_its_own_imports_nothing_of_nats() -> None:
    async with relay_process(PYTHONPROFILEIMPORTTIME="1") as relay:
        imported = {line.rpartition("|")[2].strip() for line in relay.lines if line.startswith("import time:")}
    assert "relay.server.server" in imported
    assert [name for name in imported if name.split(".")[0] in {"nats", "nkeys", "nacl"}] == []


def test_a_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['nats'] = None\n"
        "from relay.vocabulary.errors import ConfigurationError\n"
        "try:\n    import relay.cluster.nats_bus\nexcept ConfigurationError as error:\n    print(error)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ}
    )
    assert finished.stdout == "cluster.url needs nats-py: pip install 'audio-relay[cluster]'.\n"
