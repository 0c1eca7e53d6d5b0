"""The `relay` command: a person's mistake is one sentence on standard error and exit code 2, never a traceback."""

import sys

import click

from relay import __version__
from relay.cli.broadcast import broadcast_command
from relay.cli.config import config_command
from relay.cli.demo import demo_command
from relay.cli.health import health_command
from relay.cli.listen import listen_command
from relay.cli.serve import serve_command
from relay.vocabulary.errors import RelayError, UserError

EXIT_USER_ERROR = 2
EXIT_FAILURE = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="relay")
def relay_command() -> None:
    """Carry one broadcaster's live audio to thousands of listeners."""


for _command in (
    serve_command,
    demo_command,
    broadcast_command,
    listen_command,
    config_command,
    health_command,
):
    relay_command.add_command(_command)


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        relay_command(prog_name="relay")
    except UserError as error:
        click.echo(f"relay: {error}", err=True)
        sys.exit(EXIT_USER_ERROR)
    except RelayError as error:
        click.echo(f"relay: {error}", err=True)
        sys.exit(EXIT_FAILURE)
