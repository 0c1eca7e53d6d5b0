"""Access control of real relays over real sockets: each threat that needs no browser, by its name."""

import asyncio
import contextlib
import itertools
import json
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from relay.cli.app import running_relay
from relay.settings.settings import Settings
from tests.support.in_process import settings_with
from tests.support.ports import free_port
from tests.support.processes import RelayProcess, environment, relay_process, running
from tests.support.tokens import ED25519_KEY, SECRET, public_pem, seconds_from_now, token, write_keys
from tests.support.tone import sine, write_wav

pytestmark = pytest.mark.timed

RELAY_V1 = Subprotocol("relay.v1")
BY_TOKEN = {
    "RELAY_ACCESS_TOKEN_SECRET": SECRET,
    "RELAY_ACCESS_OPEN_SESSIONS": "[]",
    "RELAY_LIMITS_MAX_FAILURES_PER_MINUTE": "never",
}


@pytest.fixture
async def relay() -> AsyncIterator[RelayProcess]:
    """Run a relay that requires a token for everything and has no session named `closed`."""
    async with relay_process(RELAY_ACCESS_SESSIONS="ev*", RELAY_LOG_LEVEL="debug", **BY_TOKEN) as process:
        yield process


@asynccontextmanager
async def client(url: str, target: str, shown: str | None = None, **options: Any) -> AsyncIterator[ClientConnection]:
    """Connect with a token in the header."""
    headers = {} if shown is None else {"Authorization": f"Bearer {shown}"}
    address = url.replace("http://", "ws://") + target
    options = {"subprotocols": [RELAY_V1], "additional_headers": headers, **options}
    async with connect(address, compression=None, proxy=None, **options) as connection:
        yield connection


async def first_word(connection: ClientConnection) -> str:
    """Return the type of the first control message."""
    async with asyncio.timeout(10):
        return str(json.loads(await connection.recv(decode=True))["type"])


async def closing(connection: ClientConnection) -> tuple[int, str]:
    """Return the close code and the last error text before it."""
    sentence = ""
    async with asyncio.timeout(15):
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                message = await connection.recv()
                if isinstance(message, str):
                    sentence = json.loads(message).get("message", sentence)
    assert caught.value.rcvd is not None, "cut off without a close frame"
    return caught.value.rcvd.code, sentence


async def answer(url: str, target: str, shown: str | None = None, **options: Any) -> tuple[int, str]:
    """Return the HTTP status and body for a client without `relay.v1`; 101 means that the relay lets it in."""
    try:
        async with client(url, target, shown, subprotocols=None, **options):
            return 101, ""
    except InvalidStatus as refused:
        return refused.response.status_code, refused.response.body.decode()


async def stream_status(port: int, host: str, *headers: str) -> int:
    """Return the HTTP status of the stream of `ev1`, which is requested as that of `host`."""
    lines = (f"GET /stream/ev1.wav HTTP/1.1\r\nHost: {host}", *headers, "Connection: close")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(10):
        writer.write("\r\n".join((*lines, "", "")).encode())
        status = int((await reader.readline()).split()[1])
        if status != 200:
            assert b"does not know this name" in await reader.read()
        writer.close()
        await writer.wait_closed()
    return status


def two_seconds(folder: Path) -> Path:
    """Write an audio file of two seconds."""
    path = folder / "tone.wav"
    write_wav(path, sine(440, 16_000, 2), 16_000)
    return path


ROLES = ("broadcast", "listen", "admin")
PLACES = tuple(itertools.product(("ev1", "ev2", "closed"), ("main", "de")))
SESSIONS: Mapping[str, set[str]] = {"ev1": {"ev1"}, "ev*": {"ev1", "ev2"}, "*": {"ev1", "ev2"}, "closed": set()}
CHANNELS: Mapping[str, set[str]] = {"main": {"main"}, "d*": {"de"}, "*": {"main", "de"}}


async def test_matrix_of_role_session_and_channel(
    relay: RelayProcess, record_property: Callable[[str, object], None]
) -> None:
    """Each token opens exactly what it names, among what exists."""
    wrong, asked_for = [], 0
    for role, session, channel in itertools.product(ROLES, SESSIONS, CHANNELS):
        shown = token(role=role, session=session, channel=channel)
        for asked, (place, track) in itertools.product(("broadcast", "listen"), PLACES):
            status, _ = await answer(relay.url, f"/v1/{asked}/{place}/{track}", shown)
            asked_for += 1
            right = asked == role and place in SESSIONS[session] and track in CHANNELS[channel]
            if status != (101 if right else 401):
                wrong.append(f"{role} {session}/{channel} asked to {asked} {place}/{track}: {status}")
    assert not wrong
    record_property(
        "figure", f"{asked_for} requests with {len(ROLES) * len(SESSIONS) * len(CHANNELS)} tokens, none wrong"
    )


async def test_one_answer_for_unknown_and_forbidden(relay: RelayProcess) -> None:
    """Guessing session names reveals nothing: not in a status, an error text or a close code."""
    shown = (None, "guess-guess", token(session="ev2"), token(role="admin"), token(exp=1), token(aud="x"))
    answers = set()
    for given, target in itertools.product(shown, ("/v1/listen/ev1", "/v1/listen/closed", "/v1/broadcast/ev1")):
        status, body = await answer(relay.url, target, given)
        async with client(relay.url, target, given) as refused:
            answers.add((status, body, *await closing(refused)))
    assert await relay.terminate() == 0
    (told,) = [line for line in relay.log if line["event"] == "clients were refused"]
    assert told["refused"] == 2 * 3 * len(shown)
    assert {"no token", "not a token", "wrong role, session or channel", "expired", "wrong audience"} <= set(
        told["reasons"]
    )
    assert len(answers) == 1
    ((status, body, code, sentence),) = answers
    assert (status, code) == (401, 4502)
    assert body.strip() == sentence


async def test_an_occupied_channel_is_told_only_to_who_may_broadcast(relay: RelayProcess) -> None:
    right = token(role="broadcast")
    async with client(relay.url, "/v1/broadcast/ev1", right) as first:
        assert await first_word(first) == "hello"
        assert (await answer(relay.url, "/v1/broadcast/ev1", token()))[0] == 401
        assert (await answer(relay.url, "/v1/broadcast/ev1", right))[0] == 409


async def test_header_before_subprotocol_before_query() -> None:
    right, wrong = token(), "wrong-token"
    async with relay_process(RELAY_ACCESS_TOKEN_IN_QUERY="true", **BY_TOKEN) as relay:  # noqa: S106 - a setting, not a secret
        for header, subprotocol, query in itertools.product((None, right, wrong), repeat=3):
            subprotocols = [RELAY_V1] + [Subprotocol(f"relay.token.{subprotocol}")] * (subprotocol is not None)
            target = "/v1/listen/ev1" + (f"?token={query}" if query else "")
            async with client(relay.url, target, header, subprotocols=subprotocols) as connection:
                expected = "hello" if (header or subprotocol or query) == right else "error"
                assert await first_word(connection) == expected, (header, subprotocol, query)
                assert connection.subprotocol == RELAY_V1


async def test_a_token_in_the_query_is_no_token_unless_allowed(relay: RelayProcess) -> None:
    assert (await answer(relay.url, f"/v1/listen/ev1?token={token()}"))[0] == 401


async def test_a_listener_switches_only_to_channels_that_its_token_is_for(relay: RelayProcess) -> None:
    shown = token(channel=["main", "de"])
    async with contextlib.AsyncExitStack() as stack:
        for channel in ("main", "de", "fr"):
            broadcaster = client(relay.url, f"/v1/broadcast/ev1/{channel}", token(role="broadcast"))
            assert await first_word(await stack.enter_async_context(broadcaster)) == "hello"
        listener = await stack.enter_async_context(client(relay.url, "/v1/listen/ev1", shown))
        for channel, told in (("fr", 4502), ("de", "de"), ("fr", 4502), ("main", "main")):
            await listener.send(json.dumps({"type": "switch", "channel": channel}))
            async with asyncio.timeout(10):
                while (message := json.loads(await listener.recv(decode=True)))["type"] not in {"hello", "error"} or (
                    message.get("channel") == "main" != told
                ):
                    pass
            assert message.get("code", message.get("channel")) == told


async def test_a_take_over_needs_the_right_to_broadcast_there(relay: RelayProcess) -> None:
    right = token(role="broadcast", channel="main")
    async with client(relay.url, "/v1/broadcast/ev1", right) as first:
        assert await first_word(first) == "hello"
        for wrong in (token(), token(role="broadcast", channel="de"), token(role="broadcast", session="ev2"), None):
            assert (await answer(relay.url, "/v1/broadcast/ev1?takeover=1", wrong))[0] == 401
        await first.ping()
        async with client(relay.url, "/v1/broadcast/ev1?takeover=1", right) as second:
            assert await first_word(second) == "hello"
            assert (await closing(first))[0] == 4500


async def test_token_confusion_at_a_real_relay(tmp_path: Path) -> None:
    """Keys of three kinds, and tokens that mix them up."""
    keys = write_keys(tmp_path)
    async with relay_process(RELAY_ACCESS_TOKEN_KEY_FILES=",".join(keys), **BY_TOKEN) as relay:
        by_ed = token(key=ED25519_KEY, algorithm="EdDSA", headers={"kid": "ed"})
        assert (await answer(relay.url, "/v1/listen/ev1", by_ed))[0] == 101
        assert (await answer(relay.url, "/v1/listen/ev1", token()))[0] == 101
        forged = {
            "id of another key": token(headers={"kid": "ed"}),
            "unknown id": token(headers={"kid": "no"}),
            "key of another id": token(key=ED25519_KEY, algorithm="EdDSA", headers={"kid": "rsa"}),
            "no signature": by_ed.rpartition(".")[0] + ".",
            "not yet": token(nbf=2**40, exp=2**41),
        }
        for name, shown in forged.items():
            assert (await answer(relay.url, "/v1/listen/ev1", shown))[0] == 401, name


async def test_listening_is_open_by_pattern() -> None:
    settings = {**BY_TOKEN, "RELAY_ACCESS_OPEN_SESSIONS": "public-*, ev1"}
    async with relay_process(**settings) as relay:
        for session, status in (("public-7", 101), ("ev1", 101), ("private", 401), ("ev12", 401)):
            assert (await answer(relay.url, f"/v1/listen/{session}"))[0] == status
        assert (await answer(relay.url, "/v1/broadcast/public-7"))[0] == 401
        assert (await answer(relay.url, "/v1/listen/public-7", "an old token, not needed"))[0] == 101


class TestCommands:
    """The commands send the credentials of their settings."""

    async def test_broadcast_and_listen(self, tmp_path: Path) -> None:
        sent, heard = two_seconds(tmp_path), tmp_path / "heard.wav"
        wav = str(sent)
        async with relay_process(**BY_TOKEN) as relay:
            url = ("--url", relay.websocket_url)
            async with running("listen", "ev1", "-o", str(heard), *url, RELAY_CLIENT_TOKEN=token()) as listening:
                await listening.line(lambda line: "listening to" in line)
                shown = token(role="broadcast")
                async with running("broadcast", "ev1", wav, *url, RELAY_CLIENT_TOKEN=shown) as broadcasting:
                    assert await broadcasting.wait() == 0, broadcasting.text
                assert await listening.wait() == 0, listening.text
            assert heard.read_bytes() == sent.read_bytes()
            for wrong in ({}, {"RELAY_CLIENT_TOKEN": token(session="ev2")}, {"RELAY_BROADCAST_KEY": "open-sesame"}):
                for command in (("listen", "ev1", "-o", str(tmp_path / "none.wav")), ("broadcast", "ev1", wav)):
                    async with running(*command, *url, **wrong) as refused:
                        assert await refused.wait() == 1, refused.text
                        assert "Not allowed" in refused.text

    async def test_load_test(self) -> None:
        async with relay_process(**BY_TOKEN) as relay:
            command = ("loadtest", "--listeners", "4", "--duration", "1", "--url", relay.websocket_url)
            both = token(role=["broadcast", "listen"], session="loadtest-*")
            for shown, code in ((both, 0), (token(role="broadcast", session="*"), 1)):
                async with running(*command, RELAY_CLIENT_TOKEN=shown) as load:
                    assert await load.wait(60) == code, load.text


class TestOpenConnections:
    """Open connections stay bound to the token that let them in."""

    @pytest.mark.parametrize("role", ["broadcast", "listen"])
    async def test_expired_while_connected(self, role: str) -> None:
        async with relay_process(RELAY_ACCESS_TOKEN_LEEWAY_SECONDS="0", **BY_TOKEN) as relay:  # noqa: S106 - a setting, not a secret
            expiry = seconds_from_now(4)
            short = token(role=role, exp=expiry)
            async with (
                client(relay.url, f"/v1/{role}/ev1", short) as expiring,
                client(relay.url, "/v1/listen/ev1", token()) as staying,
            ):
                assert await first_word(expiring) == "hello"
                code, sentence = await closing(expiring)
                assert code == 4001
                assert "expired" in sentence
                assert seconds_from_now(0) >= expiry, "too early"
                assert await first_word(staying) == "hello"
                await staying.ping()
            assert (await answer(relay.url, f"/v1/{role}/ev1", short))[0] == 401

    async def test_a_key_that_is_replaced_closes_those_whom_it_let_in(self, tmp_path: Path) -> None:
        old, new = tmp_path / "old.pub.pem", tmp_path / "new.pub.pem"
        for path in (old, new):
            path.write_text(public_pem(ED25519_KEY))
        by_old, by_new = (
            token(key=ED25519_KEY, algorithm="EdDSA", headers={"kid": kid}, role=["listen", "broadcast"])
            for kid in ("old", "new")
        )

        port = free_port()

        def settings(*keys: Path, **options: object) -> Settings:
            access = {"token_key_files": [str(path) for path in keys], "open_sessions": ["public"], **options}
            return settings_with({"server.port": port, **{f"access.{name}": value for name, value in access.items()}})

        async with running_relay(settings(old)) as relay, contextlib.AsyncExitStack() as stack:

            async def enter(target: str, shown: str | None = None) -> ClientConnection:
                connection = await stack.enter_async_context(client(relay.url, target, shown))
                assert await first_word(connection) == "hello"
                return connection

            closed = [await enter("/v1/listen/ev1", by_old), await enter("/v1/broadcast/ev1", by_old)]
            public = await enter("/v1/listen/public")
            assert relay.replace(settings(old, new)) == 0, "a further key harms nobody"
            staying = await enter("/v1/listen/ev1", by_new)
            assert relay.replace(settings(new)) == 2
            for connection in closed:
                assert (await closing(connection))[0] == 4001
            assert (await answer(relay.url, "/v1/listen/ev1", by_old))[0] == 401
            assert relay.replace(settings(new, open_sessions=[])) == 1
            assert (await closing(public))[0] == 4001
            await staying.ping()
            assert relay.replace(settings(new, sessions=["other"])) == 1
            assert (await closing(staying))[0] == 4001

    async def test_settings_that_can_not_be_used_change_nothing(self, tmp_path: Path) -> None:
        settings = settings_with({"access.token_secret": SECRET})
        broken = settings_with({"access.token_key_files": [str(tmp_path / "no.pem")]})
        async with running_relay(settings) as relay, client(relay.url, "/v1/broadcast/ev1", token(role="broadcast")):
            with pytest.raises(Exception, match="cannot be read"):
                relay.replace(broken)
            assert (await answer(relay.url, "/v1/broadcast/ev2", token(role="broadcast", session="*")))[0] == 101


class TestOrigin:
    """Cross-site WebSocket: the relay refuses a page of another origin before the upgrade."""

    async def test_cross_site_websocket(self) -> None:
        async with relay_process() as relay:
            for target, subprotocols in itertools.product(
                ("/v1/broadcast/ev1", "/v1/listen/ev1"), ([RELAY_V1], [RELAY_V1, Subprotocol("relay.token.x")], None)
            ):
                for origin in ("https://evil.example", "null", "http://127.0.0.1", relay.url.replace("127", "128")):
                    with pytest.raises(InvalidStatus) as caught:
                        async with client(relay.url, target, subprotocols=subprotocols, origin=Origin(origin)):
                            raise AssertionError(f"a page of {origin} got in")
                    assert caught.value.response.status_code == 403
                    assert b"origin" in caught.value.response.body
                async with client(relay.url, target, subprotocols=subprotocols, origin=Origin(relay.url)):
                    pass

    async def test_allowed_origins_behind_a_proxy(self) -> None:
        allowed = {"RELAY_BROADCAST_OPEN": "true", "RELAY_ACCESS_ALLOWED_ORIGINS": "https://relay.example.org"}
        async with relay_process(**allowed) as relay:
            good = Origin("https://relay.example.org")
            assert (await answer(relay.url, "/v1/listen/ev1", origin=good))[0] == 101
            assert (await answer(relay.url, "/v1/listen/ev1", origin=Origin(relay.url)))[0] == 403
            assert (await answer(relay.url, "/v1/listen/ev1"))[0] == 101, "not a browser"

    async def test_subdomains_and_apps(self) -> None:
        allowed = "https://*.example.org capacitor://localhost"
        async with relay_process(RELAY_BROADCAST_OPEN="true", RELAY_ACCESS_ALLOWED_ORIGINS=allowed) as relay:
            for origin, status in (
                ("https://a.example.org", 101),
                ("capacitor://localhost", 101),
                ("https://example.org", 403),
                ("https://a.b.example.org", 403),
                ("http://localhost", 403),
            ):
                assert (await answer(relay.url, "/v1/listen/ev1", origin=Origin(origin)))[0] == status, origin

    async def test_a_strangers_name_that_leads_to_loopback_is_not_the_relays_own(self) -> None:
        """The page of `http://evil.example:PORT` may not listen after its name leads to this machine."""
        port = free_port()
        urls = {host: f"http://{host}:{port}" for host in ("evil.example", "mine.example", "relay.localhost")}
        allowed = f"same-origin {urls['mine.example']}"
        settings = {"RELAY_BROADCAST_OPEN": "true", "RELAY_ACCESS_ALLOWED_ORIGINS": allowed}
        async with relay_process("--port", str(port), **settings):
            for name, status in (("evil.example", 403), ("mine.example", 101), ("relay.localhost", 101)):
                options: dict[str, Any] = {"origin": Origin(urls[name]), "host": "127.0.0.1", "port": port}
                for target in ("/v1/listen/ev1", "/v1/broadcast/ev1"):
                    assert (await answer(urls[name], target, **options))[0] == status, (name, target)
                # A page sends no origin when it reads from its own address.
                assert await stream_status(port, f"{name}:{port}") == (200 if status == 101 else status), name
            # A proxy may use any name.
            options = {"origin": Origin("https://relay.example.org"), "host": "127.0.0.1", "port": port}
            options["additional_headers"] = {"X-Forwarded-For": "198.51.100.7"}
            assert (await answer("http://relay.example.org", "/v1/listen/ev1", **options))[0] == 101
            assert await stream_status(port, "relay.example.org", "X-Forwarded-For: 198.51.100.7") == 200

    async def test_pages_and_health_are_for_every_origin(self) -> None:
        async with relay_process() as relay:
            command = ("curl", "-sS", "-o", os.devnull, "-w", "%{http_code}", "-H", "Origin: https://evil.example")
            for path in ("/", "/listen/ev1", "/healthz"):
                curl = await asyncio.create_subprocess_exec(
                    *command, relay.url + path, stdout=asyncio.subprocess.PIPE, env=environment({})
                )
                assert (await curl.communicate())[0] == b"200"


class TestNoSecret:
    """A relay without keys serves only this machine and the user who started it."""

    async def test_broadcasting_needs_the_key_that_was_made(self, tmp_path: Path) -> None:
        settings = {"XDG_RUNTIME_DIR": str(tmp_path), "RELAY_BROADCAST_OPEN": "false"}
        async with relay_process(**settings) as relay:
            assert (await answer(relay.url, "/v1/listen/ev1"))[0] == 101
            assert (await answer(relay.url, "/v1/broadcast/ev1"))[0] == 401
            port = relay.url.rpartition(":")[2]
            path = tmp_path / "relay" / f"broadcast-key-{port}"
            for stored in path.parent.iterdir():
                assert stat.S_IMODE(stored.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            key = path.read_text()
            assert (await answer(relay.url, "/v1/broadcast/ev0", key))[0] == 101
            broadcast = ("broadcast", "ev1", str(two_seconds(tmp_path)), "--url", relay.websocket_url)
            for runtime, finds in ((str(tmp_path), True), (str(tmp_path / "other"), False)):
                async with running(*broadcast, XDG_RUNTIME_DIR=runtime) as command:
                    if finds:
                        await relay.event("session ended")
                    else:
                        assert await command.wait() == 1
                        assert "Not allowed" in command.text
            assert key not in relay.text
            assert await relay.terminate() == 0
            assert not path.exists()

    async def test_the_link_is_printed_once_and_opens(self, tmp_path: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            *(os.sys.executable, "-m", "relay", "serve", "--port", str(free_port())),  # type: ignore[attr-defined]
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment({"XDG_RUNTIME_DIR": str(tmp_path)}),
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                while b"#key=" not in (line := await process.stdout.readline()):
                    assert line, "it ended without a link"
            link, _, key = line.split()[-1].decode().partition("#key=")
            url, _, session = link.partition("/broadcast/")
            assert (await answer(url, f"/v1/broadcast/{session}", key))[0] == 101
            process.terminate()
            rest = await process.stdout.read()
            assert key.encode() not in rest
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({}, "there is no broadcast key"),
            ({"RELAY_BROADCAST_OPEN": "true"}, "broadcast.open would let them broadcast"),
            ({"RELAY_BROADCAST_OPEN": "true", "RELAY_BROADCAST_KEY": "open-sesame"}, "unset one of them"),
        ],
    )
    async def test_another_address_refuses_to_start(self, settings: dict[str, str], says: str) -> None:
        async with running("serve", "--host", "0.0.0.0", "--port", str(free_port()), **settings) as process:  # noqa: S104 - the relay must refuse it
            assert await process.wait() == 2
            assert len(process.lines) == 1
            assert says in process.text

    async def test_sessions_that_nobody_could_listen_to_refuse_to_start(self) -> None:
        async with running("serve", "--port", str(free_port()), RELAY_ACCESS_OPEN_SESSIONS="[]") as process:
            assert await process.wait() == 2
            assert "there are no token keys" in process.text

    async def test_another_address_with_keys_of_tokens_starts(self) -> None:
        async with relay_process("--host", "0.0.0.0", **BY_TOKEN) as relay:  # noqa: S104 - the relay requires a secret
            assert (await answer(relay.url, "/v1/broadcast/ev1", token(role="broadcast")))[0] == 101
            assert (await answer(relay.url, "/v1/broadcast/ev1"))[0] == 401
