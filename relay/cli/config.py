"""`relay config`: shows the settings in force and the origin of each, but no secret.

Invariants: the `toml` output can be loaded again. If nothing is set, it equals `config/relay.toml`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Literal

import click

from relay.cli.options import config_option
from relay.cli.output import show
from relay.settings.configuration import DEFAULT_ORIGIN, KEYS, Key, LoadedSettings, load_settings, section_models

PREAMBLE = """\
# Settings of the relay: every key, what it means, and its environment variable. Delete what you do
# not change. A value without a note "from …" is the default. The command line overrides the
# environment, and the environment overrides this file. `relay config` shows what is in force and
# what set it. The word "never" switches a limit off where that is possible; zero does not.
"""

_COMMENT_COLUMNS = 100

_HIDDEN = "…"
"""Stands for a secret. It is not a valid key, so it cannot be mistaken for one."""


@click.command("config")
@config_option
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "toml", "json"]),
    default="table",
    show_default=True,
    help="table for people, toml to start a configuration file with, json for programs.",
)
def config_command(config_path: Path | None, output_format: Literal["table", "toml", "json"]) -> None:
    """Print the settings in force, and where each comes from.

    The command line overrides the environment (RELAY_SECTION_KEY), and the environment overrides the
    file. Secrets are not shown.
    """
    render = {"table": render_table, "toml": render_toml, "json": render_json}[output_format]
    show(render(load_settings(config_path, {}, os.environ)), nl=False)


def render_table(loaded: LoadedSettings) -> str:
    """Return one line per setting: name, value and origin. On a terminal, settings that somebody set are bold."""
    rows = [("setting", "value", "from")]
    for key, value in _values(loaded):
        if value is None:
            shown = "(unset)"
        elif key.is_secret:
            shown = "(set, hidden)"
        else:
            shown = _toml_value(value)
        rows.append((key.dotted, shown, loaded.origins[key.dotted]))
    name_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{name:<{name_width}}  {shown:<{value_width}}  {origin}" for name, shown, origin in rows]
    lines[1:] = [
        line if row[2] == DEFAULT_ORIGIN else click.style(line, bold=True)
        for line, row in zip(lines[1:], rows[1:], strict=True)
    ]
    return "\n".join(lines) + "\n"


def render_toml(loaded: LoadedSettings) -> str:
    """Return a TOML file with the settings in force. Comments explain each key and name its origin."""
    parts = [PREAMBLE]
    section = ""
    for key, value in _values(loaded):
        if key.section != section:
            section = key.section
            parts.append(f"\n# {section_models()[section].__doc__}\n[{section}]\n")
        origin = loaded.origins[key.dotted]
        note = "" if origin == DEFAULT_ORIGIN else f"  # from {_one_line(origin)}"
        parts.append(f"\n{_comment(key.field.description or '')}# Environment: {key.variable}\n")
        if key.is_secret:
            parts.append(f'# {key.name} = "{_HIDDEN}"{note}{", hidden" if value is not None else ""}\n')
        elif value is None:
            parts.append(f"# {key.name} = {_toml_value((key.field.examples or [''])[0])}\n")
        else:
            parts.append(f"{key.name} = {_toml_value(value)}{note}\n")
    return "".join(parts)


def render_json(loaded: LoadedSettings) -> str:
    """Return a JSON object of sections, of keys, of `value` and `origin`. A secret that is set has the value "…"."""
    tree: dict[str, dict[str, dict[str, object]]] = {}
    for key, value in _values(loaded):
        shown = _HIDDEN if key.is_secret and value is not None else value
        tree.setdefault(key.section, {})[key.name] = {"value": shown, "origin": loaded.origins[key.dotted]}
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def _values(loaded: LoadedSettings) -> Iterator[tuple[Key, object]]:
    """Yield every key with its value as in a file. Secrets are masked; None means that the key is not set."""
    dump = loaded.settings.model_dump(mode="json")
    for key in KEYS.values():
        yield key, dump[key.section][key.name]


def _comment(text: str) -> str:
    return fill(text, _COMMENT_COLUMNS, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False) + "\n"


def _toml_value(value: object) -> str:
    # JSON's booleans, numbers and strings are valid TOML, except for one character that TOML requires to be escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    return text if text.isprintable() else ascii(text)
