"""`relay demo`: one command puts a voice on the air."""

import asyncio
import re
import shlex
import signal
import subprocess
import wave
from importlib.resources import files

from websockets.asyncio.client import connect

from tests.support.markdown import ROOT, commands_tested_by
from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.wire_listener import closing, open_listener

PAGE = "/v1/listen/demo?codec=opus&packet_ms=60"
"""What the listening page asks for."""


async def test_the_voice_is_on_the_air_until_ctrl_c() -> None:
    with wave.open(str(files("relay") / "samples" / "counting.wav"), "rb") as sample:
        voice = sample.readframes(sample.getnframes())
    async with running("demo", "--port", str(free_port())) as demo:
        invitation = await demo.line(lambda line: "press Play" in line)
        url = re.search(r"http://(127\.0\.0\.1:\d+/listen/demo) ", invitation)
        assert url is not None
        await demo.line(lambda line: line.startswith("broadcasting"))
        async with connect("ws://" + url[1].replace("/listen", "/v1/listen"), compression=None, proxy=None) as listener:
            heard = b""
            async with asyncio.timeout(10):
                while len(heard) < 32_000:
                    frame = await listener.recv(decode=False)
                    heard += frame
        assert heard in voice + voice, "not the voice, or with a hole"
        page = await open_listener(f"http://{url[1]}".removesuffix("/listen/demo"), PAGE)
        with closing([page]):
            await page.until(lambda: len(page.frames) >= 5)
            demo.signal(signal.SIGINT)
            await page.until_ended()
            assert page.close_code == 1000, "the page would say that the connection is lost"
        assert await demo.wait() == 0, demo.text
        assert "Traceback" not in demo.text


def test_the_command_of_the_readme_starts_it() -> None:
    (command,) = commands_tested_by(__file__, "README.md")
    planned = subprocess.run(
        [*shlex.split(command), "--dry-run", "--no-print-directory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert planned.stdout.splitlines()[-1] == ".venv/bin/relay demo"
