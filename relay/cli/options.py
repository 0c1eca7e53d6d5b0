"""Options that several commands share, and what their values mean."""

import math
from pathlib import Path
from typing import TypeVar

import click
from click.core import ParameterSource

from relay.settings.configuration import CONFIG_VARIABLE

T = TypeVar("T")

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=CONFIG_VARIABLE,
    help=f"A TOML file with settings. config/relay.toml documents every key. [env: {CONFIG_VARIABLE}]",
)


def given_before(context: click.Context, name: str, value: T) -> T:
    """Give the value of a subcommand's option, which may also stand before the subcommand's name.

    Args:
        context: Of the subcommand, whose group has the same option.
        name: Of the option's parameter.
        value: What the subcommand has; the command line's other place is stronger unless this stood there, too.
    """
    group = context.parent
    if group is not None and _is_given(group, name) and not _is_given(context, name):
        value = group.params[name]
    return value


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


class FiniteRange(click.FloatRange):
    """A number in a range; neither nan, which compares with nothing, nor infinity."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it; what is none is a usage error."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number
