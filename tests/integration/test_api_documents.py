"""The API documents of a running relay are served, and the relay behaves as they say."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from relay.client import broadcast
from tests.support.operator import ask
from tests.support.processes import relay_process
from tests.support.wire_listener import closing, open_listener

ADMIN_KEY = "an-admin-key"
MOST_SECONDS = 15
"""The time limit for schemathesis, after which it stops by itself."""

UNLIMITED = dict.fromkeys(
    (
        "RELAY_LIMITS_MAX_FAILURES_PER_MINUTE",
        "RELAY_LIMITS_MAX_REQUESTS_PER_SECOND",
        "RELAY_LIMITS_MAX_REQUESTS_PER_SECOND_PER_ADDRESS",
        "RELAY_LIMITS_MAX_COSTLY_REQUESTS_PER_SECOND",
        "RELAY_LIMITS_MAX_COSTLY_REQUESTS_PER_SECOND_PER_ADDRESS",
    ),
    "1000000",
)


@pytest.mark.parametrize(("name", "version"), [("asyncapi", "3.0.0"), ("openapi", "3.1.0")])
async def test_the_documents_are_public_and_kept_by_caches_and_counted(name: str, version: str) -> None:
    async with relay_process(RELAY_BROADCAST_KEY="a-broadcast-key", RELAY_PROMETHEUS_ENABLED="true") as relay:
        found = await ask(relay.url, "GET", f"/{name}.json")
        assert found.json[name] == version
        assert found.headers["cache-control"] == "public, max-age=3600"
        again = await ask(relay.url, "GET", f"/{name}.json", If_None_Match=found.headers["etag"])
        assert (again.status, again.body) == (304, "")
        metrics = await ask(relay.url, "GET", "/metrics")
    assert 'relay_http_responses_total{status="304"} 1.0' in metrics.body


async def test_no_request_that_openapi_allows_or_forbids_is_answered_otherwise(tmp_path: Path) -> None:
    settings = {"RELAY_ACCESS_ADMIN_KEY": ADMIN_KEY, "RELAY_BROADCAST_OPEN": "true", "RELAY_PROMETHEUS_ENABLED": "true"}
    # The answer that is a stream has no end, so it is turned off: what else is answered there is as it is described.
    settings["RELAY_STREAM_ENABLED"] = "false"
    async with relay_process(**settings, **UNLIMITED) as relay:
        paths = (await ask(relay.url, "GET", "/openapi.json")).json["paths"].values()
        # Schemathesis skips the address from which it reads the document.
        operations = sum(method in path for path in paths for method in ("get", "delete")) - 1
        # It runs as a separate program, because its pytest plugin would slow down the start of every run.
        schemathesis = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{relay.url}/openapi.json"),
            *("--url", relay.url, "--header", f"Authorization: Bearer {ADMIN_KEY}"),
            *("--phases", "coverage,fuzzing", "--max-examples", "5", "--max-time", str(MOST_SECONDS), "--seed", "1"),
            *("--generation-database", "none", "--no-color"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await schemathesis.communicate()
    assert schemathesis.returncode == 0, printed.decode()
    assert f"Selected: {operations}/{operations}\n" in printed.decode()


async def test_the_operators_answers_are_those_that_openapi_describes() -> None:
    async with (
        relay_process(RELAY_ACCESS_ADMIN_KEY=ADMIN_KEY, RELAY_BROADCAST_OPEN="true") as relay,
        broadcast(relay.websocket_url, "ev1", reconnect=None) as broadcaster,
    ):
        document = (await ask(relay.url, "GET", "/openapi.json")).json
        listener = await open_listener(relay.url, "/v1/listen/ev1")
        with closing([listener]):
            await broadcaster.send(bytes(640))
            await listener.until(lambda: bool(listener.frames))
            listener.send_text("stats", buffer_ms=80, underruns=1, playout_ms=130, jumps=0)
            listener.send_text("ping", id=1)
            await listener.until(lambda: any(message["type"] == "pong" for message in listener.told))
            connection = listener.hello["connection_id"]
            for method, path, name in (
                ("GET", "", "Sessions"),
                ("GET", "/ev1", "Session"),
                ("DELETE", f"/ev1/connections/{connection}", "Disconnected"),
                ("DELETE", "/ev1/main", "Ended"),
            ):
                answer = await ask(relay.url, method, f"/v1/sessions{path}", ADMIN_KEY)
                described(document, name).validate(answer.json)


def described(document: dict[str, Any], name: str) -> Any:
    return jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": document["components"]})
