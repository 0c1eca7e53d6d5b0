"""The commands and samples of the documentation work, in the order in which a reader meets them.

Each page has its own shell. The test compares the first line of output that the page shows after a command, except for
numbers. A comment before a code block marks special cases; readers do not see it:

    <!-- not run: REASON -->            cannot run here
    <!-- tested by PATH -->             another test runs it
    <!-- each in its own terminal -->   the commands of the block run in parallel
    <!-- saved as FILE -->              a program that a later command runs

A comment that begins with "assumed" contains the commands for what the text assumes, such as a running relay.
"""

import json
import re
import time
from pathlib import Path

import pytest

from relay.settings.configuration import load_settings
from tests.support.markdown import PAGES, ROOT, Block, blocks, read
from tests.support.terminal import COMMAND_SECONDS, Terminal

LANGUAGES = {"", "console", "html", "http", "ini", "js", "json", "nginx", "python", "sh", "text", "toml", "ts"}
NOTES = ("not run: ", "tested by ", "each in its own terminal", "saved as ", "made by ", "end")
REPEAT_SECONDS = 30.0
"""A test types faster than a reader, so it retries for this long a command whose peer is not there yet."""

_LONG_RUNNING = re.compile(r"^(\w+=\S+ )*relay (serve|demo)\b|^moto_server\b|^relay broadcast .*--loop\b|&$")


def with_code() -> list[str]:
    """Return the pages that contain something to run."""
    return [page for page in PAGES if any(block.language in {"console", "python"} for block in blocks(read(page)))]


@pytest.mark.parametrize("page", with_code())
def test_commands_and_samples_run_in_the_order_of_the_page(page: str, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, is_active=page != "README.md")
    try:
        for block in blocks(read(page)):
            if not block.is_run:
                continue
            if block.language == "console":
                run_console(terminal, f"{page}:{block.line}", block)
            elif block.language == "python":
                program = tmp_path / block.note.removeprefix("saved as ") if block.note else tmp_path / "sample.py"
                program.write_text(localized(block.text, terminal))
                code, output = (0, "") if block.note else terminal.run("python sample.py")
                assert code == 0, f"{page}:{block.line}: {output}"
    finally:
        terminal.close()


def run_console(terminal: Terminal, place: str, block: Block) -> None:
    for command, shown in block.commands:
        local = localized(command, terminal)
        expected = localized(shown[0], terminal) if shown else ""
        deadline = time.monotonic() + REPEAT_SECONDS  # noqa: TID251 - a time limit, not a clock
        if _LONG_RUNNING.search(local) or block.note == "each in its own terminal":
            log = terminal.run_beside(local)
            while not is_shown(expected, log.read_text()):
                assert time.monotonic() < deadline, f"{place}: {local}\n{log.read_text()}"  # noqa: TID251
                time.sleep(0.1)
            continue
        while True:
            code, output = terminal.run(local)
            assert "Traceback" not in output, f"{place}: {local}\n{output}"
            if is_shown(expected, output) if shown else code == 0:
                break
            may_repeat = terminal.is_busy and time.monotonic() < deadline  # noqa: TID251
            assert may_repeat, f"{place}: {local}\nexit code {code}, expected {expected!r}\n{output}\n{terminal.logs()}"
            time.sleep(1)


def localized(text: str, terminal: Terminal) -> str:
    """Replace the page's relay with the relay of this test, and keep load tests small."""
    here = f"127.0.0.1:{terminal.port}"
    for pattern, replacement in (
        (r"\b(http|ws)s://relay\.example\.org\b", rf"\1://{here}"),
        (r"\b(192\.0\.2\.10|127\.0\.0\.1|localhost):8080\b", here),
        (r"(127\.0\.0\.1:|moto_server .*-p )5000\b", rf"\g<1>{terminal.moto_port}"),
        (r"(relay loadtest .*--listeners) \d+", r"\1 20"),
        (r"(relay loadtest .*--duration) \d+", r"\1 2"),
        (r"\bp99_ms>\d+", f"p99_ms>{COMMAND_SECONDS * 1000:.0f}"),  # a busy machine proves no latency
    ):
        text = re.sub(pattern, replacement, text)
    return text


def is_shown(expected: str, output: str) -> bool:
    """Whether an output contains a line of the page; numbers, spaces and the text that … replaces may differ."""
    pattern = ".*".join(re.escape(part) for part in without_numbers(expected).split("…"))
    return any(re.search(pattern, without_numbers(line)) for line in output.splitlines()) or not expected


def without_numbers(line: str) -> str:
    return re.sub(r"\d[\d.,]*", "0", " ".join(line.split()))


@pytest.mark.parametrize("page", PAGES)
def test_each_block_runs_or_says_why_not(page: str) -> None:
    for block in blocks(read(page)):
        place = f"{page}:{block.line}"
        assert block.language in LANGUAGES, f"{place}: {block.language} is no language that the tests know"
        assert not block.note or block.note.startswith(NOTES), f"{place}: {block.note!r} is no note"
        assert block.language != "console" or list(block.commands), f"{place}: no line begins with '$ '"
        assert block.language != "sh" or not block.is_run, f"{place}: make it a console, or say why it is not run"
        if block.note.startswith("tested by "):
            assert (ROOT / block.note.removeprefix("tested by ")).exists(), f"{place}: {block.note} is not there"


@pytest.mark.parametrize("page", PAGES)
def test_settings_and_data_that_a_page_shows_are_valid(page: str, tmp_path: Path) -> None:
    for block in blocks(read(page)):
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "toml" and block.is_run:
            (tmp_path / "relay.toml").write_text(block.text, encoding="utf-8")
            load_settings(tmp_path / "relay.toml", {}, {})


def test_a_command_is_found_with_its_continuation_and_its_output() -> None:
    (block,) = blocks("<!-- note -->\n```console\n$ a \\\n    b   # why\nout\n$ c\n```\n")
    assert (block.note, list(block.commands)) == ("note", [("a b", ["out"]), ("c", [])])


def test_what_a_page_assumes_is_found() -> None:
    (block,) = blocks("text\n   <!-- assumed\n   $ a\n   -->\n")
    assert (block.language, block.line, list(block.commands)) == ("console", 3, [("a", [])])


@pytest.mark.parametrize(
    ("expected", "output", "is_there"),
    [
        ("in 3,000 s", "at 1: in 2.5  s", True),
        ("key=… end", "key=abc end", True),
        ("lost", "found", False),
        ("", "", True),
    ],
)
def test_an_output_is_compared_without_numbers(expected: str, output: str, is_there: bool) -> None:
    assert is_shown(expected, output) == is_there
