"""What tests read in a page of the documentation: its blocks of code, its prose and its anchors."""

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
        language: The word behind its fence.
        text: Its content, without the indentation of the fence.
        line: The line of the page where it begins.
        note: The comment in front of it.
    """

    language: str
    text: str
    line: int
    note: str = ""

    @property
    def is_run(self) -> bool:
        """Whether the tests of the documentation run it."""
        return not self.note.startswith(("not run: ", "tested by ", "saved as "))

    @property
    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Each command of a console, without its comment, and the lines of output that the page shows."""
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
    """Return the text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """Return the blocks of code of a page in their order, and what it assumes as blocks of console."""
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


def comments(text: str) -> list[str]:
    """Return the comments of a page, but for those that `blocks` has taken for what the page assumes."""
    outside = re.sub(_FENCE, "", text, flags=re.MULTILINE | re.DOTALL)
    found = _BLOCK.sub("", outside)
    return [comment.strip() for comment in re.findall(r"<!--(.*?)-->", found, re.DOTALL)]


def prose(text: str) -> str:
    """Return a page with empty lines in the place of its blocks of code and of its comments."""
    return re.sub(
        rf"{_FENCE}|^ *<!-- .*?-->$",
        lambda block: "\n" * block[0].count("\n"),
        text,
        flags=re.MULTILINE | re.DOTALL,
    )


def anchors(text: str) -> set[str]:
    """Return what a link to a page can name: its headings as forges name them, and its anchors in HTML."""
    found = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
        found.add(slug if slug not in found else f"{slug}-1")
    return found
