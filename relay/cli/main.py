"""The `relay` command: a person's mistake is one sentence on standard error and exit code 2, never a traceback."""

import importlib
import sys

import click

from relay import __version__
from relay.cli.output import EXIT_FAILURE, EXIT_USER_ERROR, say
from relay.vocabulary.errors import RelayError, UserError

COMMANDS = ("serve", "demo", "broadcast", "listen", "sessions", "loadtest", "plan", "token", "config", "health")
"""Commands in the order of the help. Each is `NAME_command` in `relay.cli.NAME`."""


class _Commands(click.Group):
    """Imports a command only when it is used: a health check needs neither audio files nor a load test."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"relay.cli.{cmd_name}"), f"{cmd_name}_command")
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="relay")
def relay_command() -> None:
    """Stream live audio, one channel per language, to thousands of listeners."""


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        relay_command(prog_name="relay")
    except UserError as error:
        say(f"relay: {error}")
        sys.exit(EXIT_USER_ERROR)
    except RelayError as error:
        say(f"relay: {error}")
        sys.exit(EXIT_FAILURE)
