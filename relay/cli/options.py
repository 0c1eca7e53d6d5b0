"""Options that several commands share, and the types of their values."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from relay.settings.configuration import CONFIG_VARIABLE
from relay.vocabulary.audio import Codec

T = TypeVar("T")

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=CONFIG_VARIABLE,
    help=f"A TOML file with settings. config/relay.toml documents every key. [env: {CONFIG_VARIABLE}]",
)


def codec_option(text: str, name: str = "--codec", default: Codec | None = Codec.PCM_S16LE) -> Decorator:
    """Return an option that is one of the codecs, with a help text."""
    return click.option(
        name,
        type=click.Choice([codec.value for codec in Codec]),
        default=None if default is None else default.value,
        show_default=default is not None,
        help=text,
    )


def given_before(context: click.Context, name: str, value: T) -> T:
    """Return the value of a subcommand's option, which may also precede the subcommand's name.

    Args:
        context: The subcommand's context, whose group has the same option.
        name: Name of the option's parameter.
        value: The subcommand's value. A value before the subcommand's name replaces it, unless the command line also
            has the option after the name.
    """
    group = context.parent
    if group is not None and _is_given(group, name) and not _is_given(context, name):
        value = group.params[name]
    return value


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


class FiniteRange(click.FloatRange):
    """A number in a range, but neither infinity nor nan, which no comparison excludes."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; anything else is a usage error."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} must be a finite number.", param, ctx)
        return number
