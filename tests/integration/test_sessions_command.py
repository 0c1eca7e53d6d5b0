"""`relay sessions` as a person runs it, against real relays and against other servers."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.live_session import broadcasting, listen_beside
from tests.support.ports import free_port
from tests.support.processes import RelayProcess, environment, relay_process
from tests.support.tokens import SECRET, token
from tests.support.wire_listener import closing

ADMIN_KEY = "an-admin-key"
SETTINGS = {"RELAY_BROADCAST_OPEN": "true", "RELAY_ACCESS_ADMIN_KEY": ADMIN_KEY, "RELAY_ACCESS_TOKEN_SECRET": SECRET}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process(**SETTINGS) as process:
        yield process


@pytest.fixture
def settings(relay: RelayProcess) -> Mapping[str, str]:
    return {"RELAY_CLIENT_URL": relay.websocket_url, "RELAY_ACCESS_ADMIN_KEY": ADMIN_KEY}


async def run(settings: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run `relay sessions ARGUMENTS`; return its exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "sessions", *arguments),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=environment(settings),
    )
    async with asyncio.timeout(30):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_list_show_disconnect_and_end(relay: RelayProcess, settings: Mapping[str, str]) -> None:
    assert await run(settings) == (0, "", "there are no sessions\n")
    async with broadcasting(relay, "ev1", "?name=English") as broadcaster:
        listeners = await listen_beside(relay, "ev1", 2)
        with closing(listeners):
            await broadcaster.send(10)
            code, table, _ = await run(settings)
            titles, row = table.splitlines()
            assert (code, titles.split()[:4]) == (0, ["session", "channel", "name", "state"])
            assert row.split()[:8] == ["ev1", "main", "English", "live", "16000", "Hz", "mono", "live"]
            code, shown, _ = await run(settings, "show", "ev1")
            names = [broadcaster.connection_id, *(listener.hello["connection_id"] for listener in listeners)]
            assert code == 0
            assert all(name in shown for name in names)
            as_json = json.loads((await run(settings, "show", "ev1", "--json"))[1])
            assert as_json["listeners"] == 2
            assert json.loads((await run(settings, "--json"))[1])["sessions"][0]["id"] == "ev1"
            code, told, _ = await run(settings, "disconnect", "ev1", names[1])
            assert (code, told) == (0, f"disconnected {names[1]} (listen) from ev1/main\n")
            await listeners[0].until_ended()
            assert listeners[0].close_code == 4501
            assert await run(settings, "end", "ev1") == (0, "ended ev1/main\n", "")
            await listeners[1].until_ended()
            assert (listeners[1].close_code, listeners[1].account()) == (1000, broadcaster.published)


async def test_one_channel_ends(relay: RelayProcess, settings: Mapping[str, str]) -> None:
    async with broadcasting(relay, "ev2/de"), broadcasting(relay, "ev2/fr"):
        assert await run(settings, "end", "ev2", "--channel", "de") == (0, "ended ev2/de\n", "")
        (session,) = json.loads((await run(settings, "--json"))[1])["sessions"]
        assert [each["id"] for each in session["channels"]] == ["fr"]


async def test_a_token_goes_before_the_key_and_sees_what_it_is_for(
    relay: RelayProcess, settings: Mapping[str, str]
) -> None:
    async with broadcasting(relay, "ev3/de"), broadcasting(relay, "ev3/fr"):
        shown = {**settings, "RELAY_CLIENT_TOKEN": token(role="admin", session="ev3", channel="fr")}
        (session,) = json.loads((await run(shown, "--json"))[1])["sessions"]
        assert [each["id"] for each in session["channels"]] == ["fr"]
        code, _, sentence = await run(shown, "end", "ev3", "--channel", "de")
        assert (code, sentence.startswith("relay: Not allowed: ")) == (1, True)
        wrong_role = {**settings, "RELAY_CLIENT_TOKEN": token(role="broadcast")}
        assert (await run(wrong_role))[0] == 1


async def test_options_before_the_subcommand_hold_for_it(relay: RelayProcess, settings: Mapping[str, str]) -> None:
    """Otherwise the command would end a session at another relay than the one in the options."""
    async with broadcasting(relay, "ev4"):
        elsewhere = {**settings, "RELAY_CLIENT_URL": "ws://127.0.0.1:1"}
        code, shown, _ = await run(elsewhere, "--json", "--url", relay.websocket_url, "show", "ev4")
        assert (code, json.loads(shown)["id"]) == (0, "ev4")
        assert (await run(elsewhere, "--url", relay.websocket_url, "end", "ev4"))[0] == 0
        assert (await run(settings, "--url", relay.websocket_url, "end", "ev4", "--url", "ws://127.0.0.1:1"))[0] == 2


async def test_the_key_of_a_relay_that_made_its_own_is_found(tmp_path: Path) -> None:
    async with relay_process(XDG_RUNTIME_DIR=str(tmp_path), RELAY_BROADCAST_OPEN="false") as relay:
        here = {"RELAY_CLIENT_URL": relay.websocket_url, "XDG_RUNTIME_DIR": str(tmp_path)}
        assert await run(here) == (0, "", "there are no sessions\n")
        code, _, sentence = await run({**here, "XDG_RUNTIME_DIR": str(tmp_path / "other")})
        assert code == 2
        assert "There is no operator's credential for" in sentence


@pytest.mark.parametrize(
    ("arguments", "changed", "code", "says"),
    [
        (("show", "nobody"), {}, 1, "Not allowed: "),
        (("disconnect", "nobody", "7"), {}, 1, "Not allowed: "),
        (("disconnect", "ev1", "a/../../b c"), {}, 1, "Not allowed: "),
        ((), {"RELAY_ACCESS_ADMIN_KEY": "another-key"}, 1, "Not allowed: "),
        (("end", "a/b"), {}, 2, "The session id 'a/b' must have"),
        (("end", "ev1", "--channel", ""), {}, 2, "The channel id '' must have"),
        ((), {"RELAY_CLIENT_URL": "ws://127.0.0.1:1"}, 2, "Nothing listens at ws://127.0.0.1:1"),
        ((), {"RELAY_CLIENT_URL": "wss://{host}"}, 2, "wss://"),
        ((), {"RELAY_CLIENT_URL": "ws://no-such-host.invalid"}, 2, "The host of ws://no-such-host.invalid is unknown"),
    ],
)
async def test_errors_are_one_sentence(
    *,
    relay: RelayProcess,
    settings: Mapping[str, str],
    arguments: tuple[str, ...],
    changed: Mapping[str, str],
    code: int,
    says: str,
) -> None:
    host = relay.url.removeprefix("http://")
    ended, output, errors = await run(
        {**settings, **{name: text.format(host=host) for name, text in changed.items()}}, *arguments
    )
    assert (ended, output) == (code, "")
    assert errors.startswith("relay: ")
    assert says in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>hello", "answered HTTP 200, not like a relay"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[]", "answered HTTP 200, not like a relay"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\n\r\n", "answered HTTP 302, not like a relay"),
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", "cannot answer at present (HTTP 429)"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Type: text/html\r\n\r\n<p>", "answered HTTP 401, not like a relay"),
        (b"HTTP/1.1 401 x\r\nContent-Type: text/plain\r\n\r\nNo \x1b[2Jway.", "No ?[2Jway."),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "did not answer like a relay"),
        (b"", "broke the connection"),
    ],
)
async def test_what_is_no_relay_is_told_so(answer: bytes, says: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", free_port())
    async with server:
        port = server.sockets[0].getsockname()[1]
        settings = {"RELAY_CLIENT_URL": f"ws://127.0.0.1:{port}", "RELAY_ACCESS_ADMIN_KEY": ADMIN_KEY}
        code, output, errors = await run(settings)
    assert (code > 0, output, len(errors.splitlines())) == (True, "", 1)
    assert says in errors
    assert "\x1b" not in errors
