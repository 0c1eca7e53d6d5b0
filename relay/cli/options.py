"""Options that several commands share, and what their values mean."""

import math
from pathlib import Path

import click

from relay.adapters.configuration import CONFIG_VARIABLE

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=CONFIG_VARIABLE,
    help=f"A TOML file with settings; config/relay.toml documents every key. [env: {CONFIG_VARIABLE}]",
)


class FiniteRange(click.FloatRange):
    """A number in a range; neither nan, which compares with nothing, nor infinity."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it; what is none is a usage error."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number
