"""`relay demo` with the settings of a relay that is not open to everyone."""

import errno
import re
import socket
from pathlib import Path

from websockets.asyncio.client import connect

from tests.support.certificates import make_certificate
from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.tokens import SECRET


async def test_a_demo_is_for_everybody_whatever_the_settings_say(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    settings = {
        "RELAY_SERVER_HOST": "0.0.0.0",  # noqa: S104 - the demo must ignore it
        "RELAY_ACCESS_TOKEN_SECRET": SECRET,
        "RELAY_ACCESS_SESSIONS": "ev*",
        "RELAY_ACCESS_OPEN_SESSIONS": "[]",
        "RELAY_SERVER_TLS_CERTIFICATE": str(certificate.certificate),
        "RELAY_CLUSTER_URL": f"nats://127.0.0.1:{free_port()}",
        "RELAY_SERVER_TLS_KEY": str(certificate.key),
    }
    async with running("demo", "--port", str(free_port()), **settings) as demo:
        invitation = await demo.line(lambda line: "press Play" in line)
        await demo.line(lambda line: line.startswith("broadcasting"))
        url = re.search(r"http://(127\.0\.0\.1:\d+)/listen/demo ", invitation)
        assert url is not None, invitation
        port = int(url[1].rpartition(":")[2])
        with socket.socket() as other:
            assert other.connect_ex(("127.0.0.2", port)) == errno.ECONNREFUSED, "other machines can reach it"
        async with connect(f"ws://{url[1]}/v1/listen/demo", compression=None, proxy=None) as listener:
            assert isinstance(await listener.recv(), bytes)
