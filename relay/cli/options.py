"""Options that several commands share, and what their values mean."""

from pathlib import Path

import click

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="RELAY_CONFIG",
    help="A TOML file with settings; config/relay.toml documents every key. [env: RELAY_CONFIG]",
)
