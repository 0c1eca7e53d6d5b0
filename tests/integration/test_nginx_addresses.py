"""What the site in config/nginx.conf keeps to itself, and how it chooses among several relays."""

import asyncio
import http.client
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support import nginx as support
from tests.support.certificates import make_certificate
from tests.support.nginx import nginx
from tests.support.ports import free_port
from tests.support.processes import relay_process


def ask(port: int, path: str, context: ssl.SSLContext) -> tuple[int, str]:
    """Ask through the site; gives the status and the body."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


async def test_what_is_for_the_operator_is_not_for_the_world(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    async with relay_process(RELAY_PROMETHEUS_ENABLED="true") as relay:
        port = urlsplit(relay.url).port
        assert port is not None
        async with nginx(tmp_path, certificate, port) as (_, secure_port):
            for path in ("/healthz", "/readyz", "/metrics"):
                assert (await asyncio.to_thread(ask, secure_port, path, certificate.trusting))[0] == 403, path


async def test_of_several_relays_a_session_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two servers that say who they are stand for two relays.
    several = support.SITE.read_text(encoding="utf-8")
    chosen = "# hash $relay_session consistent;"
    assert several.count(chosen) == 1
    ports = [free_port() for _ in range(2)]
    names = "".join(f"server {{ listen 127.0.0.1:{port}; return 200 {port}; }}\n" for port in ports)
    several = names + several.replace(chosen, chosen.removeprefix("# ") + f" server 127.0.0.1:{ports[1]};")
    site = tmp_path / "several.conf"
    site.write_text(several, encoding="utf-8")
    monkeypatch.setattr(support, "SITE", site)
    certificate = make_certificate(tmp_path)
    addresses = ("/v1/listen/{}", "/v1/listen/{}/de?buffer_ms=500", "/v1/broadcast/{}/main", "/listen/{}")
    async with nginx(tmp_path, certificate, ports[0]) as (_, secure_port):
        chosen_by_session = {
            session: {
                (await asyncio.to_thread(ask, secure_port, address.format(session), certificate.trusting))[1]
                for address in addresses
            }
            for session in map(str, range(20))
        }
    assert all(len(relays) == 1 for relays in chosen_by_session.values()), chosen_by_session
    assert len(set.union(*chosen_by_session.values())) == 2
