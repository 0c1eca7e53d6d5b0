"""The commands and samples of the documentation work, in the order in which a reader meets them.

Each page has its own shell. The output that a page shows after a command must equal the whole output of the command,
except for the number of spaces. In the shown output, … stands for anything within a line, or alone for any lines. A
comment before a code block marks special cases; readers do not see it:

    <!-- numbers vary -->               numbers of the output, and times such as 12:30:59, may differ
    <!-- ids and numbers vary -->       so may the ids of connections
    <!-- each in its own terminal -->   the commands of the block run in parallel
    <!-- saved as FILE -->              a file that a later command uses
    <!-- tested by PATH -->             another test runs it, and names the page
    <!-- not run: REASON -->            cannot run here

A comment that begins with "assumed" contains the commands for what the text assumes, such as a running relay. A command
with the id `LISTENER` gets that of a real listener.
"""

import itertools
import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from relay.settings.configuration import load_settings
from tests.support.markdown import PAGES, ROOT, Block, blocks, comments, read
from tests.support.terminal import COMMAND_SECONDS, FILLED_IN, Terminal

pytestmark = pytest.mark.long

LANGUAGES = {"", "console", "html", "http", "ini", "js", "json", "nginx", "python", "sh", "text", "toml", "ts"}
SEPARATE = "each in its own terminal"
VARIES = {"numbers vary": False, "ids and numbers vary": True}
NOTES = ("not run: ", "tested by ", SEPARATE, "saved as ", *VARIES)
OTHER_COMMENTS = ("begin generated: ", "end generated", "made by ", "end of what is made")
LISTENER = "0b3eae5d-adfe-47c4-8d45-5642bfe924e4"
"""The connection of a listener of the session ev1, in all pages."""

REPEAT_SECONDS = 30.0
"""A test types faster than a reader, so it retries for this long a command whose peer is not there yet."""

_LONG_RUNNING = re.compile(r"^(\w+=\S+ )*relay (serve|demo)\b|^moto_server\b|^relay broadcast .*--loop\b|&$")
_ID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


def with_code() -> list[str]:
    """Return the pages that contain something to run."""
    return [page for page in PAGES if any(block.language in {"console", "python"} for block in blocks(read(page)))]


@pytest.mark.parametrize("page", with_code())
def test_commands_and_samples_run_in_the_order_of_the_page(page: str, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, is_active=page not in {"README.md", "CONTRIBUTING.md"})
    try:
        for block in blocks(read(page)):
            place = f"{page}:{block.line}"
            if block.note.startswith("saved as "):
                path = Path(localized(block.note.removeprefix("saved as "), terminal))
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_text(localized(block.text, terminal))
            elif block.is_run and block.language == "console":
                run_console(terminal, place, block)
            elif block.is_run and block.language == "python":
                (tmp_path / "sample.py").write_text(localized(block.text, terminal))
                code, output = terminal.run("python sample.py")
                assert code == 0, f"{place}: {output}"
    finally:
        terminal.close()


def run_console(terminal: Terminal, place: str, block: Block) -> None:
    for command, lines in block.commands:
        local = localized(command, terminal)
        shown = [localized(line, terminal) for line in lines]
        if LISTENER in local:
            connection = listener_of_ev1(terminal, place)
            local, *shown = (text.replace(LISTENER, connection) for text in (local, *shown))
        deadline = time.monotonic() + REPEAT_SECONDS  # noqa: TID251 - a time limit, not a clock
        if _LONG_RUNNING.search(local) or block.note == SEPARATE:
            log = terminal.run_beside(local)
            while not is_shown([*shown, "…"], log.read_text(), block.note):
                assert time.monotonic() < deadline, f"{place}: {local}\n{log.read_text()}"  # noqa: TID251
                time.sleep(0.1)
            continue
        while True:
            code, output = terminal.run(local)
            assert "Traceback" not in output, f"{place}: {local}\n{output}"
            if is_shown(shown, output, block.note) if shown else code == 0:
                break
            may_repeat = terminal.is_busy and time.monotonic() < deadline  # noqa: TID251
            expected = "\n".join(shown) or "exit code 0"
            assert may_repeat, f"{place}: {local}\nexpected\n{expected}\nnot {code} and\n{output}\n{terminal.logs()}"
            time.sleep(1)


def listener_of_ev1(terminal: Terminal, place: str) -> str:
    """Wait for a listener of the session ev1, and return the id of its connection."""
    deadline = time.monotonic() + REPEAT_SECONDS  # noqa: TID251 - a time limit, not a clock
    while True:
        code, output = terminal.run("relay sessions show ev1 --json 2>/dev/null")
        listeners = json.loads(output)["worst_listeners"] if code == 0 else []
        if listeners:
            return str(listeners[0]["connection_id"])
        assert time.monotonic() < deadline, f"{place}: nobody listens to ev1\n{terminal.logs()}"  # noqa: TID251 - as above
        time.sleep(0.1)


def localized(text: str, terminal: Terminal) -> str:
    """Replace the page's relay and files with those of this test, and keep load tests small."""
    here = f"127.0.0.1:{terminal.port}"
    folder = terminal.folder
    for pattern, replacement in (
        (r"\b(http|ws)s://relay\.example\.org\b", rf"\1://{here}"),
        (r"\b(192\.0\.2\.10|127\.0\.0\.1|localhost):8080\b", here),
        (r"(127\.0\.0\.1:|PORT=)8081\b", rf"\g<1>{terminal.second_port}"),
        (r"(127\.0\.0\.1:|moto_server .*-p )5000\b", rf"\g<1>{terminal.moto_port}"),
        (r"https://radio\.example\.org/stream.mp3", f"file://{folder}/speech.wav"),
        (r"/(etc|var/log)/", rf"{folder}/\1/"),
        (r"/opt/relay/bin/", ""),
        (r"^port = 8080$", f"port = {terminal.port}"),
        (r"(relay loadtest .*--listeners) \d+", r"\1 20"),
        (r"(relay loadtest .*--duration) \d+", r"\1 2"),
        (r"(python -m tests.(fuzz|soak) --minutes) \d+", r"\1 0.1"),
        (r"\bp99_ms>\d+", f"p99_ms>{COMMAND_SECONDS * 1000:.0f}"),  # a busy machine proves no latency
    ):
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return filled_in(text)


def filled_in(text: str) -> str:
    """Replace each "…" that a page assigns with a key of its own."""
    keys = (f'= "{FILLED_IN}{number}"' for number in itertools.count())
    return re.sub('= "…"', lambda _: next(keys), text)


def is_shown(shown: list[str], output: str, note: str) -> bool:
    """Whether the shown lines match the output of a command, except for what the page marks as varying."""

    def steady(line: str) -> str:
        line = " ".join(line.split())
        if VARIES.get(note):
            line = _ID.sub("ID", line)
        return re.sub(r"\d[\d.,:]*", "0", line) if note in VARIES else line

    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else ".*".join(re.escape(part) for part in steady(line).split("…")) + r"\n"
        for line in filter(str.strip, shown)
    )
    text = "".join(f"{steady(line)}\n" for line in output.splitlines() if line.strip())
    return re.fullmatch(pattern, text) is not None


@pytest.mark.parametrize("page", PAGES)
def test_each_block_runs_or_says_why_not(page: str) -> None:
    for block in blocks(read(page)):
        place = f"{page}:{block.line}"
        assert block.language in LANGUAGES, f"{place}: {block.language} is no language that the tests know"
        assert not block.note or block.note.startswith(NOTES + OTHER_COMMENTS), f"{place}: {block.note!r} is no note"
        assert block.language != "console" or list(block.commands), f"{place}: no line begins with '$ '"
        assert block.language != "sh" or not block.is_run, f"{place}: make it a console, or say why it is not run"
        if block.note.startswith("tested by "):
            test = ROOT / block.note.removeprefix("tested by ")
            assert test.exists(), f"{place}: {test} is not there"
            assert page in test.read_text(encoding="utf-8"), f"{place}: {test} does not name the page"


@pytest.mark.parametrize("page", PAGES)
def test_each_comment_is_one_that_these_tests_know(page: str) -> None:
    assert [text for text in comments(read(page)) if not text.startswith(NOTES + OTHER_COMMENTS)] == []


@pytest.mark.parametrize("page", PAGES)
def test_settings_and_data_that_a_page_shows_are_valid(page: str, tmp_path: Path) -> None:
    for block in blocks(read(page)):
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "toml" and not block.note.startswith("not run: "):
            (tmp_path / "relay.toml").write_text(filled_in(block.text), encoding="utf-8")
            load_settings(tmp_path / "relay.toml", {}, {})


def test_the_unit_of_systemd_is_valid(tmp_path: Path) -> None:
    page = "docs/guides/run-as-a-service.md"
    (unit,) = (block.text for block in blocks(read(page)) if block.language == "ini")
    (tmp_path / "relay.service").write_text(unit.replace("/opt/relay/bin/relay", "/bin/true"))
    verify = ["systemd-analyze", "verify", str(tmp_path / "relay.service")]
    finished = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout + finished.stderr) == (0, "")


def test_a_pipe_fails_if_any_part_of_it_fails(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, is_active=False)
    try:
        assert terminal.run("false | cat") == (1, "")
        assert terminal.run("yes | head -n 1") == (0, "y\n")
    finally:
        terminal.close()


def test_a_command_is_found_with_its_continuation_and_its_output() -> None:
    (block,) = blocks("<!-- note -->\n```console\n$ a \\\n    b   # why\nout\n$ c\n```\n")
    assert (block.note, list(block.commands)) == ("note", [("a b", ["out"]), ("c", [])])


def test_what_a_page_assumes_is_found() -> None:
    (block,) = blocks("text\n   <!-- assumed\n   $ a\n   -->\n")
    assert (block.language, block.line, list(block.commands)) == ("console", 3, [("a", [])])


@pytest.mark.parametrize(
    ("shown", "output", "note", "is_there"),
    [
        ("in  3 s", "in 3 s\n\n", "", True),
        ("in 3 s", "in 2 s", "", False),
        ("in 3,000 s", "in 2.5 s", "numbers vary", True),
        ("at 12:30:59", "at 9:00:00", "numbers vary", True),
        ("by 0b3eae5d-adfe-47c4-8d45-5642bfe924e4", "by 6c101b61-511d-4f77-992a-b29d67c43594", "numbers vary", False),
        (
            "by 0b3eae5d-adfe-47c4-8d45-5642bfe924e4 in 1 s",
            "by 6c101b61-511d-4f77-992a-b29d67c43594 in 2 s",
            "ids and numbers vary",
            True,
        ),
        ("key=… end", "key=abc end", "", True),
        ("one\ntwo", "one\ntwo", "", True),
        ("one", "one\ntwo", "", False),
        ("two", "one\ntwo", "", False),
        ("one\nthree", "one\ntwo\nthree", "", False),
        ("one\n…\nfour", "one\ntwo\nthree\nfour", "", True),
        ("…\ntwo", "one\ntwo", "", True),
    ],
)
def test_all_of_an_output_is_compared(shown: str, output: str, note: str, is_there: bool) -> None:
    assert is_shown(shown.splitlines(), output, note) == is_there
