"""Options that several commands share, and what their values mean."""

import ipaddress
from pathlib import Path

import click

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="RELAY_CONFIG",
    help="A TOML file with settings; config/relay.toml documents every key. [env: RELAY_CONFIG]",
)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a server on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
