"""The documentation works as it stands: its commands, samples and links, in the order in which a reader meets them.

A comment in front of a block of code says what is special about it; readers do not see it:

    <!-- not run: REASON -->            cannot run here
    <!-- tested by PATH -->             another test runs it
    <!-- each in its own terminal -->   the commands of the block run beside each other
"""

import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.settings.configuration import load_settings
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("relay/**/README.md")]
    if "node_modules" not in path.parts
)
COMMAND_SECONDS = 120.0
"""After this a command hangs; no measure of how fast one is."""

WIDTH = 100
OWN_FILES = ("english.wav", "deutsch.wav", "speech.wav")
"""Recordings that a reader has."""

_RELAY = re.compile(r"\brelay (serve|demo)\b")
_LONG_RUNNING = re.compile(r"^(\w+=\S+ )*relay (serve|demo)\b|--loop\b|&$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code.

    Attributes:
        language: What stands behind its fence.
        text: What is in it.
        line: Where it begins.
        note: The comment in front of it.
    """

    language: str
    text: str
    line: int
    note: str = ""

    @property
    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Each command of a console, with the output that the page shows."""
        command, output = "", list[str]()
        for line in self.text.splitlines():
            if command.endswith("\\"):
                command = f"{command[:-1].rstrip()} {line.strip()}"
            elif line.startswith("$ "):
                if command:
                    yield command, output
                command, output = line.removeprefix("$ "), []
            else:
                output.append(line)
        if command:
            yield re.sub(r"\s+#\s.*$", "", command), output


def blocks(text: str) -> list[Block]:
    found = []
    for match in re.finditer(
        r"(?:^ *<!-- (?P<note>[^\n]*?) -->\n+)?^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^ *```$",
        text,
        re.MULTILINE | re.DOTALL,
    ):
        line = text.count("\n", 0, match.start("language")) + 1
        body = re.sub(f"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        found.append(Block(match["language"], body, line, match["note"] or ""))
    return found


class Terminal:
    """One shell, in a folder with the project's files, in which a page's commands run one after another."""

    def __init__(self, folder: Path, *, is_active: bool) -> None:
        self.folder = folder
        self.port = free_port()
        for name in ("config", "docs", "relay", "scripts", "tests", "README.md"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").symlink_to(sys.prefix)
        for name in OWN_FILES:
            (folder / name).symlink_to(ROOT / "relay/samples/counting.wav")
        (folder / "run").mkdir(mode=0o700)
        path = f"{sys.prefix}/bin:" if is_active else ""
        self._environment = {
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PATH": f"{path}/usr/local/bin:/usr/bin:/bin",
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "RELAY_SERVER_PORT": str(self.port),
            "RELAY_CLIENT_URL": f"ws://127.0.0.1:{self.port}",
            "AWS_MAX_ATTEMPTS": "1",
        }
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._beside: dict[int, tuple[str, Path]] = {}

    def run(self, command: str) -> tuple[int, str]:
        """Run a command; returns its exit code and its output."""
        marker = secrets.token_hex(8)
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null\necho {marker} $?\n".encode())
        self._shell.stdin.flush()
        output = b""
        deadline = time.monotonic() + COMMAND_SECONDS  # noqa: TID251 - a limit for what hangs
        while (end := re.search(rf"^{marker} (\d+)\n".encode(), output, re.MULTILINE)) is None:
            left = deadline - time.monotonic()  # noqa: TID251
            ready, _, _ = select.select([self._shell.stdout], [], [], max(0.0, left))
            assert ready, f"{command!r} hangs:\n{output.decode()}"
            read = os.read(self._shell.stdout.fileno(), 65536)
            assert read, f"{command!r} ended the shell:\n{output.decode()}"
            output += read
        return int(end[1]), output[: end.start()].decode()

    def run_beside(self, command: str) -> None:
        """Start a command that goes on; a relay takes the place of all that ran before, and is waited for."""
        is_relay = _RELAY.search(command) is not None
        if is_relay:
            self._end_all()
        log = self.folder / f"beside-{len(self._beside)}.log"
        code, output = self.run(f"{command.removesuffix('&')} </dev/null >{log.name} 2>&1 & echo pid $!")
        assert code == 0, output
        pid = int(output.split()[-1])
        self._beside[pid] = (command, log)
        if is_relay:
            self._wait_for_port(command, log)

    def _wait_for_port(self, command: str, log: Path) -> None:
        deadline = time.monotonic() + COMMAND_SECONDS  # noqa: TID251 - a limit for what hangs
        while time.monotonic() < deadline:  # noqa: TID251
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"{command!r} does not listen:\n{log.read_text()}")

    def _end_all(self) -> None:
        while self._beside:
            pid, (command, log) = self._beside.popitem()
            self.run(f"kill -TERM {pid}")
            code, _ = self.run(f"wait {pid}")
            assert code in (0, 128 + signal.SIGTERM), f"{command!r} ended with {code}:\n{log.read_text()}"
            assert "Traceback" not in log.read_text(), f"{command!r} wrote:\n{log.read_text()}"

    def close(self) -> None:
        """End what runs beside, and the shell."""
        try:
            self._end_all()
        finally:
            assert self._shell.stdin is not None
            self._shell.stdin.close()
            self._shell.wait(COMMAND_SECONDS)
            assert self._shell.stdout is not None
            self._shell.stdout.close()


@pytest.fixture
def page_text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def with_code() -> list[str]:
    """The pages that have something to run."""
    return [
        page
        for page in PAGES
        if any(block.language in {"console", "python"} for block in blocks((ROOT / page).read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize("page", with_code())
def test_commands_and_samples_run_in_the_order_of_the_page(page: str, page_text: str, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, is_active=page != "README.md")
    try:
        for block in blocks(page_text):
            if block.note.startswith(("not run: ", "tested by ")):
                continue
            if block.language == "console":
                run_console(terminal, page, block)
            elif block.language == "python":
                (tmp_path / "sample.py").write_text(block.text)
                code, output = terminal.run("python sample.py")
                assert code == 0, f"{page}:{block.line}: {output}"
    finally:
        terminal.close()


def run_console(terminal: Terminal, page: str, block: Block) -> None:
    for shown, expected in block.commands:
        command = localized(shown, terminal.port)
        if _LONG_RUNNING.search(command) or block.note == "each in its own terminal":
            terminal.run_beside(command)
            continue
        code, output = terminal.run(command)
        assert "Traceback" not in output, f"{page}:{block.line}: {shown}\n{output}"
        is_shown = bool(expected) and expected[0] in output
        assert code == 0 or is_shown, f"{page}:{block.line}: {shown}\nexit code {code}\n{output}"


def localized(command: str, port: int) -> str:
    """Give a command for the relay of this test in the place of the one that the page names."""
    return re.sub(r"(192\.0\.2\.10|127\.0\.0\.1|localhost):8080", f"127.0.0.1:{port}", command)


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_a_page_shows_are_settings(page: str, page_text: str, tmp_path: Path) -> None:
    for block in blocks(page_text):
        if block.language == "toml" and not block.note.startswith("not run: "):
            path = tmp_path / "relay.toml"
            path.write_text(block.text, encoding="utf-8")
            load_settings(path, {}, {})


def prose(text: str) -> str:
    """Give a page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Give the anchors of a page's headings, as forges make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(path.read_text(encoding="utf-8")), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
        found.add(slug if slug not in found else f"{slug}-1")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str, page_text: str) -> None:
    here = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page_text))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (here.parent / name).resolve() if name else here
        assert path.exists(), f"{page} links to {target}, which is not there"
        assert not anchor or anchor in anchors(path), f"{page} links to {target}; the page has no such heading"


@pytest.mark.parametrize("page", PAGES)
def test_prose_wraps(page: str, page_text: str) -> None:
    long = [
        f"{page}:{number}"
        for number, line in enumerate(prose(page_text).splitlines(), 1)
        if len(line) > WIDTH
        and not line.lstrip().startswith("|")
        and " " in line[line.find("](") if "](" in line else 0 :]
    ]
    assert long == []


def test_a_command_is_found_with_its_continuation_and_its_output() -> None:
    (block,) = blocks("<!-- note -->\n```console\n$ a \\\n    b   # why\nout\n$ c\n```\n")
    assert (block.note, list(block.commands)) == ("note", [("a b   # why", ["out"]), ("c", [])])
