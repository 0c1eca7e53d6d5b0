"""Generate the reference of settings and commands: tables, the configuration file, and the page."""

import json
import re
from collections.abc import Iterator

import click

from relay.cli.config import render_toml
from relay.cli.main import relay_command
from relay.settings.configuration import KEYS, load_settings, section_models

CLI_INTRODUCTION = """\
# Command line

`relay COMMAND --help` shows the same text in a terminal. Options override environment variables,
and environment variables override the file: [Configuration](configuration.md).
"""


def relay_toml() -> str:
    """Return a file with every setting at its default."""
    return render_toml(load_settings(None, {}, {}))


def settings_in_markdown() -> Iterator[str]:
    """Yield the lines of a table for each section of the settings."""
    section = ""
    for key in KEYS.values():
        if key.section != section:
            section = key.section
            yield from ("", f"### {section}", "", section_models()[section].__doc__ or "", "")
            yield from ("| key | default | environment variable | meaning |", "|---|---|---|---|")
        meaning = re.sub(r"([*|<])", r"\\\1", key.field.description or "")
        yield f"| `{key.dotted}` | {_default(key.field.default)} | `{key.variable}` | {meaning} |"
    yield ""


def cli_page() -> str:
    """Return a page with the help of every command."""
    return CLI_INTRODUCTION + "\n".join(_commands(relay_command, "relay")) + "\n"


def _default(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, str):
        return f"`{value}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{json.dumps(value)}`"


def _commands(command: click.Command, name: str, depth: int = 2) -> Iterator[str]:
    context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
    if name != "relay":
        yield from (f"\n{'#' * depth} {name}\n", "```text", command.get_help(context).rstrip(), "```")
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None  # noqa: S101 - the group lists only commands that it has
            yield from _commands(found, f"{name} {child}", depth + (name != "relay"))
