"""The operator API of real relays over real sockets: permissions, reports, and the end of what it closes."""

import asyncio
import contextlib
import itertools
import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.support.live_session import broadcasting, on_both_loops
from tests.support.operator import Reply, ask
from tests.support.ports import free_port
from tests.support.processes import RelayProcess, relay_process, running
from tests.support.tokens import SECRET, token
from tests.support.wire_listener import SMALL_BUFFER_BYTES, WireListener, closing, numbered_audio, open_listener

ADMIN_KEY = "an-admin-key"
BROADCAST_KEY = "a-broadcast-key"
OPERATED = {"RELAY_BROADCAST_OPEN": "true", "RELAY_ACCESS_ADMIN_KEY": ADMIN_KEY}
FRAME_BYTES = 640


@pytest.fixture
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process(**OPERATED) as process:
        yield process


@contextlib.asynccontextmanager
async def speaker(
    relay: RelayProcess, target: str, key: str | None = None, **headers: str
) -> AsyncIterator[ClientConnection]:
    """Connect a broadcaster and wait for its greeting; read nothing after that."""
    shown = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with connect(
        f"{relay.websocket_url}/v1/broadcast/{target}",
        subprotocols=[Subprotocol("relay.v1")],
        compression=None,
        proxy=None,
        additional_headers=shown | {name.replace("_", "-"): value for name, value in headers.items()},
    ) as connection:
        assert json.loads(await connection.recv())["type"] == "hello"
        yield connection


async def closed_with(connection: ClientConnection) -> tuple[int | None, str | None]:
    async with asyncio.timeout(10):
        with contextlib.suppress(Exception):
            while True:
                await connection.recv()
        await connection.wait_closed()
    return connection.close_code, connection.close_reason


async def say(connection: ClientConnection, frames: int) -> None:
    for number in range(frames):
        await connection.send(numbered_audio(number, FRAME_BYTES))


async def operate(relay: RelayProcess, method: str, path: str) -> Reply:
    return await ask(relay.url, method, f"/v1/sessions{path}", ADMIN_KEY)


async def connection_id(relay: RelayProcess, session: str, role: str) -> str:
    shown = (await operate(relay, "GET", f"/{session}")).json
    if role == "broadcast":
        return str(shown["channels"][0]["broadcaster"]["connection_id"])
    return str(shown["worst_listeners"][0]["connection_id"])


def states(listener: WireListener) -> list[str]:
    return [told["state"] for told in listener.told if told["type"] == "state"]


def offered(listener: WireListener) -> list[str]:
    """Return the channels of the latest list that the listener received."""
    return [[each["id"] for each in told["channels"]] for told in listener.told if "channels" in told][-1]


class TestSeeing:
    async def test_sessions_and_connections(self, relay: RelayProcess) -> None:
        assert (await operate(relay, "GET", "")).json == {"sessions": [], "not_listed": 0}
        async with speaker(
            relay, "ev1/de?name=Fran%C3%A7ais&lang=fr&pace=speech", X_Forwarded_For="198.51.100.7"
        ) as one:
            listeners = [
                await open_listener(relay.url, f"/v1/listen/{target}") for target in ("ev1/de", "ev1/de", "ev0")
            ]
            with closing(listeners):
                listeners[0].send_text("stats", buffer_ms=240, playout_ms=310.5, underruns=2, jumps=1)
                await say(one, 1000)
                await listeners[0].until(lambda: len(listeners[0].frames) > 100)
                seen = (await operate(relay, "GET", "")).json["sessions"]
                assert [session["id"] for session in seen] == ["ev0", "ev1"]
                (channel,) = seen[1]["channels"]
                assert {name: channel[name] for name in ("id", "name", "lang", "state", "pace", "listeners")} == {
                    "id": "de",
                    "name": "Français",
                    "lang": "fr",
                    "state": "live",
                    "pace": "speech",
                    "listeners": 2,
                }
                assert channel["format"]["rate"] == 16_000
                assert 0 < channel["queued_ms"] < channel["lead_ms"] <= 20_000
                assert channel["delivered_frames"] > channel["released_frames"] > 100
                shown = (await operate(relay, "GET", "/ev1")).json
                assert shown["listeners"] == 2
                assert {each["client_address"] for each in shown["worst_listeners"]} == {"127.0.0.1"}
                assert shown["channels"][0]["broadcaster"]["client_address"] == "198.51.100.7"
                by_id = {each["connection_id"]: each for each in shown["worst_listeners"]}
                reporting = by_id[listeners[0].hello["connection_id"]]
                assert reporting["report"] == {"buffer_ms": 240, "playout_ms": 310.5, "underruns": 2, "jumps": 1}
                assert by_id[listeners[1].hello["connection_id"]]["report"] is None
                assert reporting["delivered_seconds"] > 2
                assert (reporting["dropped_seconds"], reporting["blocked_seconds"]) == (0, 0)

    async def test_why_there_is_nothing_to_hear(self, relay: RelayProcess) -> None:
        listener = await open_listener(relay.url, "/v1/listen/ev1")

        async def silence_after(broadcaster: ClientConnection, text: str, silence: str | None) -> object:
            since = len(listener.told)

            def is_told() -> bool:
                return any(each["type"] == "state" and each["silence"] == silence for each in listener.told[since:])

            await broadcaster.send(text)
            await listener.until(is_told)
            return (await operate(relay, "GET", "/ev1")).json["channels"][0]["silence"]

        with closing([listener]):
            async with speaker(relay, "ev1") as one:
                assert await silence_after(one, '{"type":"mute","on":true}', "muted") == "muted"
                assert await silence_after(one, '{"type":"mute","on":false}', None) is None
                assert await silence_after(one, '{"type":"pause"}', "paused") == "paused"

    async def test_who_does_not_read_is_the_worst(self, relay: RelayProcess) -> None:
        async with broadcasting(relay, "ev1") as broadcaster:
            well = await open_listener(relay.url, "/v1/listen/ev1")
            stalled = await open_listener(
                relay.url, "/v1/listen/ev1?buffer_ms=500", receive_buffer=SMALL_BUFFER_BYTES, is_reading=False
            )
            with closing([well, stalled]):
                await broadcaster.play(3)
                worst, best = (await operate(relay, "GET", "/ev1")).json["worst_listeners"]
                assert worst["connection_id"] == stalled.hello["connection_id"]
                assert worst["blocked_seconds"] > 1
                assert worst["dropped_seconds"] > 1
                assert worst["lag_ms"] > 400
                assert (best["dropped_seconds"], best["blocked_seconds"]) == (0, 0)


class TestEnding:
    async def test_listeners_get_what_was_released_also_who_is_behind(self) -> None:
        # On a busy machine, the stalled ones may wait for long.
        await on_both_loops(self.ending_beside_stalled_ones, **OPERATED, RELAY_LISTENER_STALL_LIMIT_SECONDS="never")

    async def ending_beside_stalled_ones(self, relay: RelayProcess) -> None:
        async with broadcasting(relay, "ev1") as broadcaster:
            well = await open_listener(relay.url, "/v1/listen/ev1")
            behind, starved = [
                await open_listener(
                    relay.url, f"/v1/listen/ev1{query}", receive_buffer=SMALL_BUFFER_BYTES, is_reading=False
                )
                for query in ("", "?buffer_ms=500")
            ]
            with closing([well, behind, starved]):
                await broadcaster.play(3)
                published = broadcaster.published[-1]
                await well.until(lambda: len(well.frames) == published)
                assert (await operate(relay, "DELETE", "/ev1")).json == {"session": "ev1", "ended": ["main"]}
                await well.until_ended()
                for listener in (behind, starved):
                    listener.resume()
                    await listener.until_ended()
                for listener in (well, behind, starved):
                    assert listener.close_code == 1000
                    assert listener.account() == [published]
                    assert states(listener)[-1:] == ["ended"]
                assert behind.gaps == [], "it was within its bound, so all of it was owed"
                assert starved.gaps != []

    async def test_what_is_not_released_is_thrown_away(self, relay: RelayProcess) -> None:
        listener = await open_listener(relay.url, "/v1/listen/ev1")
        with closing([listener]):
            async with speaker(relay, "ev1?pace=speech") as speaking:
                await say(speaking, 2000)
                await listener.until(lambda: len(listener.frames) > 100)
                await operate(relay, "DELETE", "/ev1/main")
                assert await closed_with(speaking) == (1000, "The operator ended the session.")
            await listener.until_ended()
            ended = await relay.event("session ended")
            assert (listener.close_code, listener.account()) == (1000, [ended["frames"]])
            assert ended["frames"] < 2000
            assert (await relay.event("unreleased audio was discarded"))["seconds"] > 0
            told = await relay.event("the operator ended channels")
            assert (told["level"], told["operator"], told["session"], told["channels"]) == (
                *("warning", "127.0.0.1"),
                *("ev1", ["main"]),
            )

    async def test_every_state(self, relay: RelayProcess) -> None:
        """A channel before its broadcaster, after its broadcaster vanished, and while its last audio drains."""
        async with speaker(relay, "ev1/lost"):
            pass
        for channel, ends in (("ending", True), ("vanishing", False)):
            async with speaker(relay, f"ev1/{channel}?pace=speech") as speaking:
                await say(speaking, 500)
                if ends:
                    await speaking.send('{"type":"end"}')
                    await closed_with(speaking)
        channels = ("ending", "lost", "vanishing", "waiting")
        listeners = {channel: await open_listener(relay.url, f"/v1/listen/ev1/{channel}") for channel in channels}
        with closing(listeners.values()):
            seen = (await operate(relay, "GET", "/ev1")).json["channels"]
            assert {each["id"]: (each["state"], each["broadcaster"]) for each in seen} == {
                "ending": ("live", None),
                "lost": ("source_lost", None),
                "vanishing": ("live", None),
                "waiting": ("waiting", None),
            }
            assert sorted((await operate(relay, "DELETE", "/ev1")).json["ended"]) == list(channels)
            for channel, listener in listeners.items():
                await listener.until_ended()
                assert (listener.close_code, states(listener)[-1]) == (1000, "ended"), channel
            again = await operate(relay, "DELETE", "/ev1")
            assert again.status == 401
            assert (await operate(relay, "GET", "")).json["sessions"] == []

    async def test_one_channel_ends_and_the_others_are_told(self, relay: RelayProcess) -> None:
        async with speaker(relay, "ev1/de") as german, speaker(relay, "ev1/fr") as french:
            listeners = [await open_listener(relay.url, f"/v1/listen/ev1/{channel}") for channel in ("de", "fr")]
            with closing(listeners):
                assert (await operate(relay, "DELETE", "/ev1/de")).json["ended"] == ["de"]
                assert (await closed_with(german))[0] == 1000
                await listeners[0].until_ended()
                await say(french, 3)
                await listeners[1].until(lambda: len(listeners[1].frames) == 3)
                await listeners[1].until(lambda: offered(listeners[1]) == ["fr"])
            async with speaker(relay, "ev1/de"):
                pass

    async def test_a_broadcaster_that_is_held_back_is_closed_too(self, relay: RelayProcess) -> None:
        async with speaker(relay, "ev1") as speaking:
            sending = asyncio.ensure_future(say(speaking, 5000))
            await relay.event("broadcaster joined")
            held = False
            async with asyncio.timeout(10):
                while not held:
                    held = json.loads(await speaking.recv())["type"] == "backpressure"
            await operate(relay, "DELETE", "/ev1")
            assert await closed_with(speaking) == (1000, "The operator ended the session.")
            with contextlib.suppress(Exception):
                await sending


class TestSendingAway:
    async def test_a_listener(self, relay: RelayProcess) -> None:
        async with speaker(relay, "ev1") as speaking:
            gone, staying = [await open_listener(relay.url, "/v1/listen/ev1") for _ in range(2)]
            with closing([gone, staying]):
                name = gone.hello["connection_id"]
                answer = (await operate(relay, "DELETE", f"/ev1/connections/{name}")).json
                assert answer == {"session": "ev1", "channel": "main", "disconnected": name, "role": "listen"}
                await gone.until_ended()
                assert gone.close_code == 4501
                await say(speaking, 5)
                await staying.until(lambda: len(staying.frames) == 5)
                assert (await operate(relay, "DELETE", f"/ev1/connections/{name}")).status == 401
            told = await relay.event("the operator disconnected a client")
            assert (told["level"], told["operator"], told["connection"], told["client"], told["role"]) == (
                *("warning", "127.0.0.1", name),
                *("127.0.0.1", "listen"),
            )

    async def test_a_listener_that_does_not_read_is_cut_off(self, relay: RelayProcess) -> None:
        async with broadcasting(relay, "ev1") as broadcaster:
            stalled = await open_listener(
                relay.url, "/v1/listen/ev1", receive_buffer=SMALL_BUFFER_BYTES, is_reading=False
            )
            with closing([stalled]):
                await broadcaster.play(2)
                await operate(relay, "DELETE", f"/ev1/connections/{stalled.hello['connection_id']}")
                assert (await operate(relay, "GET", "/ev1")).json["listeners"] == 0
                await stalled.until_cut_off()
                stalled.resume()
                await stalled.until_ended()
                assert stalled.close_code is None, "it was told, so it was waited for"

    async def test_a_broadcaster_whose_channel_waits_for_it(self, relay: RelayProcess) -> None:
        listener = await open_listener(relay.url, "/v1/listen/ev1")
        with closing([listener]):
            async with speaker(relay, "ev1") as speaking:
                await say(speaking, 5)
                await listener.until(lambda: len(listener.frames) == 5)
                name = await connection_id(relay, "ev1", "broadcast")
                assert (await operate(relay, "DELETE", f"/ev1/connections/{name}")).json["role"] == "broadcast"
                async with speaker(relay, "ev1") as second:
                    assert await closed_with(speaking) == (4501, "The operator disconnected you.")
                    await listener.until(lambda: states(listener)[-3:] == ["live", "source_lost", "live"])
                    await second.send(numbered_audio(5, FRAME_BYTES))
                    await listener.until(lambda: len(listener.frames) == 6)
                    assert listener.account() == [6], "the numbering goes on"

    @pytest.mark.parametrize("role", ["listen", "broadcast"])
    async def test_commands_stop_with_a_sentence(self, relay: RelayProcess, role: str, tmp_path: Path) -> None:
        wav = str(Path(__file__).parents[2] / "relay/samples/counting.wav")
        command = {"listen": ("listen", "ev1", "-o", str(tmp_path / "a.wav")), "broadcast": ("broadcast", "ev1", wav)}
        async with running(*command[role], "--url", relay.websocket_url) as process:
            await relay.event("connection opened") if role == "broadcast" else await process.line(
                lambda line: "listening to" in line
            )
            name = await connection_id(relay, "ev1", role)
            await operate(relay, "DELETE", f"/ev1/connections/{name}")
            assert await process.wait() == 1
            assert process.lines[-1] == "relay: The operator disconnected you."
            assert "Trying again" not in process.text


ROLES = ("broadcast", "listen", "admin")
SESSIONS: Mapping[str, set[str]] = {"ev1": {"ev1"}, "ev*": {"ev1", "ev2"}, "*": {"ev1", "ev2"}, "closed": set()}
CHANNELS: Mapping[str, set[str]] = {"main": {"main"}, "d*": {"de"}, "*": {"main", "de"}}
BY_TOKEN = {"RELAY_ACCESS_TOKEN_SECRET": SECRET, "RELAY_ACCESS_SESSIONS": "ev*"}


def seen_in(reply: Reply) -> set[tuple[str, str]] | None:
    """Return the channels that a response shows, or None if it is a refusal."""
    if reply.status == 401:
        return None
    shown = reply.json
    return {(of["id"], each["id"]) for of in shown.get("sessions", [shown]) for each in of["channels"]}


class TestWhoMay:
    async def test_matrix_of_role_session_and_channel(self, record_property: Callable[[str, object], None]) -> None:
        """Each token shows and ends exactly what it names, among what exists."""
        wrong, asked_for = [], 0
        async with relay_process(**BY_TOKEN) as relay, contextlib.AsyncExitStack() as stack:
            places, names = list(itertools.product(("ev1", "ev2"), ("main", "de"))), ("ev1", "ev2", "closed")
            right = token(role="broadcast", session="*")
            there = {}
            for session, channel in places:
                there[session, channel] = await stack.enter_async_context(speaker(relay, f"{session}/{channel}", right))
            for role, session, channel in itertools.product(ROLES, SESSIONS, CHANNELS):
                shown = token(role=role, session=session, channel=channel)
                theirs = {place for place in places if place[0] in SESSIONS[session] and place[1] in CHANNELS[channel]}
                may = theirs if role == "admin" else set()
                listed = seen_in(await ask(relay.url, "GET", "/v1/sessions", shown))
                looked = [seen_in(await ask(relay.url, "GET", f"/v1/sessions/{name}", shown)) for name in names]
                # The token's own channels stay, because the next token needs them.
                refused = [
                    await ask(relay.url, "DELETE", f"/v1/sessions/{name}/{track}", shown)
                    for name, track in places
                    if (name, track) not in may
                ]
                asked_for += 1 + len(looked) + len(refused)
                expected = [{place for place in may if place[0] == name} or None for name in names]
                if listed != (may if role == "admin" else None) or looked != expected:
                    wrong.append(f"{role} {session}/{channel} saw {listed} and {looked}")
                if {reply.status for reply in refused} - {401} or any(each.close_code for each in there.values()):
                    wrong.append(f"{role} {session}/{channel} ended what is not theirs: {refused}")
            assert not wrong
            german = token(role=["admin", "listen"], session="ev1", channel="de")
            assert (await ask(relay.url, "DELETE", "/v1/sessions/ev1", german)).json["ended"] == ["de"]
            assert (await closed_with(there["ev1", "de"]))[0] == 1000
            for place in (("ev1", "main"), ("ev2", "de")):
                await asyncio.wait_for(await there[place].ping(), 10)
        record_property("figure", f"{asked_for} requests with {len(ROLES) * len(SESSIONS) * len(CHANNELS)} tokens")

    async def test_one_answer_for_unknown_and_forbidden(self) -> None:
        settings = {**BY_TOKEN, "RELAY_BROADCAST_KEY": BROADCAST_KEY, "RELAY_ACCESS_ADMIN_KEY": ADMIN_KEY}
        async with relay_process(**settings) as relay, speaker(relay, "ev1", BROADCAST_KEY):
            name = await connection_id(relay, "ev1", "broadcast")
            shown = (
                *(None, "", "guess-guess", BROADCAST_KEY, token(role="listen"), token(role="broadcast")),
                *(token(role="admin", exp=1), token(role="admin", aud="x"), token(role="admin", session="ev2")),
            )
            asked = (
                ("GET", "/v1/sessions/ev1"),
                ("GET", "/v1/sessions/closed"),
                ("DELETE", "/v1/sessions/ev1"),
                ("DELETE", "/v1/sessions/ev1/main"),
                ("DELETE", "/v1/sessions/ev9/main"),
                ("DELETE", f"/v1/sessions/ev1/connections/{name}"),
                ("DELETE", "/v1/sessions/ev1/connections/nobody"),
            )
            replies = [await ask(relay.url, *what, given) for given, what in itertools.product(shown, asked)]
            # Requests for what does not exist, also with permission.
            replies += [await operate(relay, *what) for what in (("GET", "/ev9"), ("DELETE", "/ev1/de"), ("GET", "/x"))]
            replies += [await operate(relay, "DELETE", "/ev1/connections/nobody")]
            replies += [await ask(relay.url, "GET", "/v1/sessions", given) for given in shown[:-1]]
            assert {(reply.status, reply.body, str(reply.headers)) for reply in replies} == {
                (401, replies[0].body, str(replies[0].headers))
            }
            assert replies[0].headers["cache-control"] == "no-store"
            assert (await operate(relay, "GET", "/ev1")).json["channels"][0]["broadcaster"] is not None
            assert await relay.terminate() == 0
            (told,) = [line for line in relay.log if line["event"] == "clients were refused"]
            assert told["refused"] == len(replies)

    async def test_where_nobody_is_an_operator_everybody_is_refused(self) -> None:
        for settings in ({"RELAY_BROADCAST_OPEN": "true"}, {"RELAY_BROADCAST_KEY": BROADCAST_KEY}):
            async with relay_process(**settings) as relay:
                for given, path in itertools.product((None, "", BROADCAST_KEY), ("/v1/sessions", "/v1/sessions/ev1")):
                    assert (await ask(relay.url, "GET", path, given)).status == 401
                assert (await ask(relay.url, "DELETE", "/v1/sessions/a/b/c/d", BROADCAST_KEY)).status == 401

    async def test_only_the_header_counts(self) -> None:
        async with relay_process(RELAY_ACCESS_TOKEN_IN_QUERY="true", **OPERATED) as relay:  # noqa: S106 - a setting, not a secret
            elsewhere: tuple[tuple[str, dict[str, str]], ...] = (
                (f"?token={ADMIN_KEY}", {}),
                ("", {"Cookie": f"token={ADMIN_KEY}; Authorization=Bearer {ADMIN_KEY}"}),
                ("", {"Sec_WebSocket_Protocol": f"relay.v1, relay.token.{ADMIN_KEY}"}),
                ("", {"Authorization": f"Basic {ADMIN_KEY}"}),
            )
            for query, headers in elsewhere:
                assert (await ask(relay.url, "GET", f"/v1/sessions{query}", **headers)).status == 401
            assert (await ask(relay.url, "GET", "/v1/sessions?token=wrong", ADMIN_KEY)).status == 200

    async def test_a_page_of_another_origin_gets_no_leave(self, relay: RelayProcess) -> None:
        """A browser's preflight request for such a header or method gets no permission."""
        preflight = await ask(
            *(relay.url, "OPTIONS", "/v1/sessions/ev1"),
            Origin="https://evil.example",
            Access_Control_Request_Method="DELETE",
            Access_Control_Request_Headers="authorization",
        )
        assert (preflight.status, preflight.headers["allow"]) == (405, "GET, HEAD, DELETE")
        answer = await ask(relay.url, "GET", "/v1/sessions", ADMIN_KEY, Origin="https://evil.example")
        for reply in (preflight, answer):
            assert not [name for name in reply.headers if name.startswith("access-control")]
            assert reply.headers["cross-origin-resource-policy"] == "same-origin"

    async def test_methods_and_addresses(self, relay: RelayProcess) -> None:
        for method, path, allowed in (
            ("POST", "/v1/sessions", "GET, HEAD"),
            ("DELETE", "/v1/sessions", "GET, HEAD"),
            ("PUT", "/v1/sessions/ev1", "GET, HEAD, DELETE"),
            ("GET", "/v1/sessions/ev1/main", "DELETE"),
            ("GET", "/v1/sessions/ev1/connections/7", "DELETE"),
        ):
            for shown in (None, ADMIN_KEY):
                reply = await ask(relay.url, method, path, shown)
                assert (reply.status, reply.headers["allow"]) == (405, allowed)
        for path in ("/v1/sessions/", "/v1/sessions/a%20b", "/v1/sessions/ev1/listeners/7"):
            reply = await ask(relay.url, "DELETE", path, ADMIN_KEY)
            assert (reply.status, reply.headers["cache-control"]) == (400, "no-store")
        answer = await operate(relay, "GET", "")
        assert answer.headers["cache-control"] == "no-store"

    async def test_an_address_that_guesses_is_asked_to_wait(self) -> None:
        async with relay_process(RELAY_LIMITS_MAX_FAILURES_PER_MINUTE="3", **OPERATED) as relay:
            for _ in range(5):
                gone = await ask(relay.url, "GET", "/v1/sessions/ev1", ADMIN_KEY, X_Forwarded_For="198.51.100.7")
                assert gone.status == 401, "who may ask is no guesser"
            for _ in range(3):
                await ask(relay.url, "GET", "/v1/sessions", "guess-guess", X_Forwarded_For="198.51.100.7")
            right = await ask(relay.url, "GET", "/v1/sessions", ADMIN_KEY, X_Forwarded_For="198.51.100.7")
            assert right.status == 200, "another behind the same address shows something valid"
            refused = await ask(relay.url, "GET", "/v1/sessions", "guess-guess", X_Forwarded_For="198.51.100.7")
            assert refused.status == 429
            assert "retry-after" in refused.headers
            wrong = await ask(relay.url, "GET", "/v1/listen/ev1?buffer_ms=x", X_Forwarded_For="198.51.100.7")
            assert wrong.status == 429, "one limit for all doors"
            async with speaker(relay, "ev1", X_Forwarded_For="198.51.100.7"):
                pass  # a client that needs no credentials is admitted
            assert (
                await ask(relay.url, "GET", "/v1/sessions", ADMIN_KEY, X_Forwarded_For="198.51.100.8")
            ).status == 200

    async def test_the_key_is_replaced_while_it_runs(self, tmp_path: Path) -> None:
        path = tmp_path / "relay.toml"
        path.write_text('[access]\nadmin_key = "the-first-key"\n')
        async with relay_process("--config", str(path), RELAY_BROADCAST_OPEN="true") as relay:
            assert (await ask(relay.url, "GET", "/v1/sessions", "the-first-key")).status == 200
            path.write_text('[access]\nadmin_key = "the-second-key"\n')
            relay.signal(signal.SIGHUP)
            told = await relay.event("configuration reloaded")
            assert told["changed"] == ["access.admin_key"]
            statuses = [
                (await ask(relay.url, "GET", "/v1/sessions", key)).status for key in ("the-first-key", "the-second-key")
            ]
            assert statuses == [401, 200]
            path.write_text("")
            relay.signal(signal.SIGHUP)
            await relay.line(lambda line: "configuration reloaded" in line and relay.text.count("reloaded") > 1)
            assert (await ask(relay.url, "GET", "/v1/sessions", "the-second-key")).status == 401
            assert "-key" not in re.sub("admin_key|broadcast.key", "", relay.text)

    async def test_keys_that_a_relay_makes_are_two_and_stay(self, tmp_path: Path) -> None:
        settings = {"XDG_RUNTIME_DIR": str(tmp_path), "RELAY_BROADCAST_OPEN": "false"}
        async with relay_process(**settings) as relay:
            port = relay.url.rpartition(":")[2]
            admin, broadcast = (
                (tmp_path / "relay" / f"{kind}-key-{port}").read_text() for kind in ("admin", "broadcast")
            )
            assert admin != broadcast
            assert (await ask(relay.url, "GET", "/v1/sessions", admin)).status == 200
            relay.signal(signal.SIGHUP)
            await relay.event("configuration reloaded")
            assert (await ask(relay.url, "GET", "/v1/sessions", admin)).status == 200
            assert (await ask(relay.url, "GET", "/v1/sessions", broadcast)).status == 401
            with pytest.raises(AssertionError):
                async with speaker(relay, "ev1", admin):
                    pass
            async with speaker(relay, "ev1", broadcast):
                pass
            assert admin not in relay.text
            assert await relay.terminate() == 0
        assert list((tmp_path / "relay").iterdir()) == []

    async def test_one_key_for_both_refuses_to_start(self) -> None:
        same = {"RELAY_BROADCAST_KEY": BROADCAST_KEY, "RELAY_ACCESS_ADMIN_KEY": BROADCAST_KEY}
        async with running("serve", "--port", str(free_port()), **same) as process:
            assert await process.wait() == 2
            assert len(process.lines) == 1
            assert "every broadcaster could end every session" in process.text
            assert BROADCAST_KEY not in process.text
