"""`relay loadtest` when some of its outputs cannot be written, and the folder in which it starts."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.processes import RelayProcess, environment, relay_process

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process() as process:
        yield process


async def load(relay: RelayProcess, folder: Path, stdout: int | None, *arguments: str) -> tuple[int | None, str]:
    """Run a short test in `folder`, without standard output if it is None; return the exit code and standard error."""
    shell = ("sh", "-c", 'exec "$@" >&-', "sh") if stdout is None else ()
    relay_loadtest = (sys.executable, "-P", "-m", "relay", "loadtest")
    command = (*shell, *relay_loadtest, "--listeners", "1", "--duration", "0.5", *arguments)
    settings = environment({"RELAY_CLIENT_URL": relay.url})
    child = await asyncio.create_subprocess_exec(*command, stdout=stdout, stderr=PIPE, cwd=folder, env=settings)
    async with asyncio.timeout(40):
        _, errors = await child.communicate()
    return child.returncode, errors.decode()


async def test_a_file_that_can_not_be_written_costs_neither_the_other_nor_the_verdict(
    relay: RelayProcess, tmp_path: Path
) -> None:
    files = ("--json", "/dev/full", "--html", "page.html")
    code, errors = await load(relay, tmp_path, DEVNULL, *files, "--fail-if", "p99_ms>=0")
    assert code == 1, errors
    assert "relay: --fail-if p99_ms>=0: p99_ms is " in errors
    assert errors.splitlines()[-1] == "relay: /dev/full cannot be written: No space left on device."
    assert "</html>" in (tmp_path / "page.html").read_text()
    code, errors = await load(relay, tmp_path, DEVNULL, "--json", "/dev/full")
    assert code == 2, errors


async def test_figures_are_written_where_the_table_can_not_be(relay: RelayProcess, tmp_path: Path) -> None:
    reading, unread = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        for stdout, expected in ((full, 2), (unread, 0), (None, 0)):
            code, errors = await load(relay, tmp_path, stdout, "--json", f"{stdout}.json")
            assert code == expected, errors
            assert "Traceback" not in errors
            assert json.loads((tmp_path / f"{stdout}.json").read_text())
    finally:
        os.close(unread)
        os.close(full)


async def test_nothing_is_run_that_lies_in_the_present_folder(relay: RelayProcess, tmp_path: Path) -> None:
    for module in ("json", "multiprocessing", "pickle", "socket"):
        (tmp_path / f"{module}.py").write_text("open('was-run', 'w')\nraise SystemExit\n")
    code, errors = await load(relay, tmp_path, DEVNULL)
    assert not (tmp_path / "was-run").exists()
    assert code == 0, errors
