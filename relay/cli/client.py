"""What `relay broadcast` and `relay listen` share: arguments, settings, and words for the person."""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from relay.adapters.configuration import load_settings
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.errors import BadRequestError, RelayError, UserError
from relay.vocabulary.names import DEFAULT_CHANNEL, ChannelAddress
from relay.vocabulary.settings import Settings

_INTERRUPTED = 130
"""The exit code of shells for a program that SIGINT ended: 128 and the signal's number."""

session_argument = click.argument("session")

channel_option = click.option(
    "--channel", default=DEFAULT_CHANNEL, show_default=True, help="The audio track of the session."
)

url_option = click.option(
    "--url", metavar="URL", help="The relay's address, for example wss://relay.example.org. [setting: client.url]"
)


def load_client_settings(config_path: Path | None, url: str | None) -> Settings:
    """Give the settings in force, `url` being the option of that name.

    Raises:
        ConfigurationError: They can not be used.
    """
    return load_settings(config_path, {"client.url": url}, os.environ).settings


def read_address(session: str, channel: str) -> ChannelAddress:
    """Give the channel that the person named.

    Raises:
        UserError: One of the names can not be one.
    """
    try:
        return ChannelAddress(session, channel)
    except BadRequestError as error:
        raise UserError(str(error)) from error


def run(work: Coroutine[object, object, None]) -> None:
    """Run a client until it ends.

    Ctrl-C while nothing is there that could end in order, and a second one while it does, exits with code 130.
    """
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(_INTERRUPTED) from None


@contextmanager
def first_error() -> Iterator[None]:
    """Make one error of those that a task group raises.

    Raises:
        RelayError: The first of the group, when all in it were meant for the person.
    """
    try:
        yield
    except ExceptionGroup as group:
        expected, others = group.split(RelayError)
        if expected is None or others is not None:
            raise
        raise expected.exceptions[0] from group


def say(sentence: str) -> None:
    """Tell the person something on standard error, at once."""
    click.echo(sentence, err=True)


def format_name(audio_format: AudioFormat) -> str:
    """Name a format in a few words."""
    return f"{audio_format.rate} Hz, {'mono' if audio_format.channels == 1 else 'stereo'}"
