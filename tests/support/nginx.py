"""A real nginx with the project's site in front of a relay."""

import asyncio
import re
import shlex
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.certificates import Certificate
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
SITE = ROOT / "config" / "nginx.conf"
OPERATIONS = ROOT / "docs" / "operations.md"

_AROUND = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{site}
}}
"""


@asynccontextmanager
async def nginx(directory: Path, certificate: Certificate, relay_port: int) -> AsyncIterator[tuple[int, int]]:
    """Run nginx with the site, adapted to this place only; gives its ports for http and https."""
    http_port, https_port = free_port(), free_port()
    site = SITE.read_text(encoding="utf-8")
    for written, here in {
        "server 127.0.0.1:8080;": f"server 127.0.0.1:{relay_port};",
        "listen 80;": f"listen 127.0.0.1:{http_port};",
        "listen 443 ssl": f"listen 127.0.0.1:{https_port} ssl",
        "/etc/relay/certificate.pem": str(certificate.certificate),
        "/etc/relay/key.pem": str(certificate.key),
        "/var/log/nginx/relay.log": f"{directory}/access.log",
    }.items():
        assert site.count(written) == 1, f"{SITE.name} has no {written}"
        site = site.replace(written, here)
    configuration = directory / "nginx.conf"
    configuration.write_text(_AROUND.format(directory=directory, site=site), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        "nginx", "-e", "stderr", "-p", str(directory), "-c", str(configuration), stderr=asyncio.subprocess.PIPE
    )
    try:
        await _until_it_listens(process, https_port)
        yield http_port, https_port
    finally:
        if process.returncode is None:
            process.terminate()
        _, written_bytes = await process.communicate()
    assert b"[emerg]" not in written_bytes, written_bytes.decode()


async def _until_it_listens(process: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(10):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
    assert process.stderr is not None
    raise AssertionError(f"nginx ended: {(await process.stderr.read()).decode()}")


def site_under_a_path(folder: Path) -> Path:
    """Write the site for relays under /relay/, by the command that docs/operations.md has for it."""
    written = re.search(r"^\$ (sed .+) > relay\.conf$", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    assert written, f"{OPERATIONS.name} has no such command"
    site = folder / "relay.conf"
    site.write_bytes(subprocess.run(shlex.split(written[1]), cwd=ROOT, check=True, capture_output=True).stdout)
    return site
