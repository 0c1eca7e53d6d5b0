"""Write the reference pages that are made from the code.

    python scripts/reference.py [--check]

It writes config/relay.toml, the table of settings in docs/configuration.md, and docs/cli.md. With --check it writes
nothing, and exits with 1 if a page is not what the code says.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from relay.cli.config import render_toml
from relay.cli.main import relay_command
from relay.settings.configuration import KEYS, load_settings, section_models

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- made by scripts/reference.py -->", "<!-- end -->"
CLI_INTRODUCTION = """\
# Command line

`relay COMMAND --help` shows the same text in a terminal. Options override environment variables,
and environment variables override the file: [Configuration](configuration.md).
"""


def relay_toml() -> str:
    """Return a file with every setting at its default."""
    return render_toml(load_settings(None, {}, {}))


def settings_tables() -> Iterator[str]:
    """Return the lines of a table for each section."""
    section = ""
    for key in KEYS.values():
        if key.section != section:
            section = key.section
            yield from ("", f"### {section}", "", section_models()[section].__doc__ or "", "")
            yield from ("| key | default | environment variable | meaning |", "|---|---|---|---|")
        meaning = re.sub(r"([*|<])", r"\\\1", key.field.description or "")
        yield f"| `{key.dotted}` | {default(key.field.default)} | `{key.variable}` | {meaning} |"
    yield ""


def default(value: object) -> str:
    """Return a default as the table shows it."""
    if value is None:
        return "unset"
    if isinstance(value, str):
        return f"`{value}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{json.dumps(value)}`"


def commands(command: click.Command, name: str, depth: int = 2) -> Iterator[str]:
    """Return the help of a command and of its subcommands, as Markdown."""
    context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
    if name != "relay":
        yield from (f"\n{'#' * depth} {name}\n", "```text", command.get_help(context).rstrip(), "```")
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None  # noqa: S101 - it lists what it has
            yield from commands(found, f"{name} {child}", depth + (name != "relay"))


def pages() -> dict[Path, str]:
    """Return what each page should be."""
    configuration = ROOT / "docs/configuration.md"
    before, _, rest = configuration.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return {
        ROOT / "config/relay.toml": relay_toml(),
        configuration: "\n".join([before + BEGIN, *settings_tables(), END + after]),
        ROOT / "docs/cli.md": CLI_INTRODUCTION + "\n".join(commands(relay_command, "relay")) + "\n",
    }


def main() -> None:
    """Write the pages, or check them."""
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        if stale:
            names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
            sys.exit(f"{names}: not what the code says. Run: python scripts/reference.py")
        return
    for path in stale:
        path.write_text(pages()[path])
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
