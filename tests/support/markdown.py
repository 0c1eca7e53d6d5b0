"""The parts of a documentation page that tests use: code blocks, prose and anchors."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("relay/**/README.md")]
    if "node_modules" not in path.parts
)

_FENCE = r"^ *```.*?^ *```$"
_BLOCK = re.compile(
    r"^ *<!-- assumed\n(?P<assumed>.*?)^ *-->$"
    r"|(?:^ *<!-- (?P<note>[^\n]*?) -->\n+)?^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code.

    Attributes:
        language: The word after the opening fence.
        text: The content, without the fence's indentation.
        line: The line of the page on which the block begins.
        note: The comment before the block.
    """

    language: str
    text: str
    line: int
    note: str = ""

    @property
    def is_run(self) -> bool:
        """Whether the documentation tests run it."""
        return not self.note.startswith(("not run: ", "tested by ", "saved as "))

    @property
    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each command of a console block, without its comment, and the output that the page shows."""
        command, output = "", list[str]()
        for line in [*self.text.splitlines(), "$ "]:
            if command.endswith("\\"):
                command = f"{command[:-1].rstrip()} {line.strip()}"
            elif line.startswith("$ "):
                if command:
                    yield re.sub(r"\s+#\s.*$", "", command), output
                command, output = line.removeprefix("$ "), []
            else:
                output.append(line)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """Return the code blocks of a page in order; its hidden assumptions are console blocks too."""
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("assumed" if match["assumed"] else "language")) + 1
        if match["assumed"]:
            assumed = "\n".join(text_line.strip() for text_line in match["assumed"].splitlines())
            found.append(Block("console", assumed, line))
        else:
            body = re.sub(f"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
            found.append(Block(match["language"], body, line, match["note"] or ""))
    return found


def commands_tested_by(test: str, page: str) -> list[str]:
    """Return the commands that a page says a test file runs, given the file's `__file__`."""
    note = f"tested by {Path(test).relative_to(ROOT).as_posix()}"
    return [command for block in blocks(read(page)) if block.note == note for command, _ in block.commands]


def comments(text: str) -> list[str]:
    """Return the comments of a page, without the assumptions that `blocks` returns."""
    outside = re.sub(_FENCE, "", text, flags=re.MULTILINE | re.DOTALL)
    found = _BLOCK.sub("", outside)
    return [comment.strip() for comment in re.findall(r"<!--(.*?)-->", found, re.DOTALL)]


def prose(text: str) -> str:
    """Return a page in which empty lines replace code blocks and comments."""
    return re.sub(
        rf"{_FENCE}|^ *<!-- .*?-->$",
        lambda block: "\n" * block[0].count("\n"),
        text,
        flags=re.MULTILINE | re.DOTALL,
    )


def anchors(text: str) -> set[str]:
    """Return the anchors that a link can name: headings as GitHub and other forges name them, and HTML anchors."""
    found = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
        found.add(slug if slug not in found else f"{slug}-1")
    return found
