"""A real nginx that serves the project's site in front of one or more relays."""

import asyncio
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.certificates import Certificate
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
SITE = (ROOT / "config" / "nginx.conf").read_text(encoding="utf-8")
GUIDE = ROOT / "docs" / "guides" / "https.md"

_AROUND = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    access_log {directory}/all.log combined;
{site}
}}
"""


@asynccontextmanager
async def nginx(
    directory: Path,
    certificate: Certificate,
    *relay_ports: int,
    site: str = SITE,
    changes: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[int, int]]:
    """Run nginx with a site adapted to this machine, and yield its HTTP and HTTPS ports.

    nginx logs as much as it can: requests with their queries to `all.log`, and errors from level `info` to `error.log`.

    Args:
        directory: Where nginx keeps its files and logs; they stay there.
        certificate: The site's certificate.
        relay_ports: The relays' ports; several relays share the sessions.
        site: The configuration inside `http`.
        changes: Further replacements in the site or around it; each text must occur once.
    """
    http_port, https_port = free_port(), free_port()
    written_server = "server 127.0.0.1:8080 max_fails=0;"
    replaced = {
        written_server: " ".join(written_server.replace("8080", str(port)) for port in relay_ports),
        "listen 80;": f"listen 127.0.0.1:{http_port};",
        "listen 443 ssl": f"listen 127.0.0.1:{https_port} ssl",
        "/etc/relay/certificate.pem": str(certificate.certificate),
        "/etc/relay/key.pem": str(certificate.key),
    }
    if len(relay_ports) > 1:
        replaced["# hash $relay_session"] = "hash $relay_session"
    text = _AROUND.format(directory=directory, site=site)
    for written, here in (replaced | dict(changes or {})).items():
        assert text.count(written) == 1, f"there is no {written}"
        text = text.replace(written, here)
    for name, here in {"relay.log": "access.log", "error.log": "error.log"}.items():
        text = text.replace(f"/var/log/nginx/{name}", f"{directory}/{here}")
    assert "/var/log" not in text
    configuration = directory / "nginx.conf"
    configuration.write_text(text, encoding="utf-8")
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


def site_under_a_path() -> str:
    """Return the site for relays under /relay/, made with the command in docs/guides/https.md."""
    written = re.search(r"^\$ (sed .+) > relay\.conf$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert written, f"{GUIDE.name} has no such command"
    return subprocess.run(shlex.split(written[1]), cwd=ROOT, check=True, capture_output=True, text=True).stdout
