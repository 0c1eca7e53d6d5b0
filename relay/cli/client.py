"""What `relay broadcast` and `relay listen` share: arguments, settings, and words for the person."""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import click

from relay.adapters.configuration import load_settings
from relay.adapters.local_key import find_key, runtime_directory
from relay.cli.options import is_loopback
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


def broadcast_credential(settings: Settings) -> str | None:
    """Give what a broadcaster of these settings shows: its token, the broadcast key, or one that the relay made.

    The last is for a relay of the same person on this machine that was not given any key, see
    `relay.adapters.local_key`.
    """
    for secret in (settings.client.token, settings.broadcast.key):
        if secret is not None:
            return secret.get_secret_value()
    parts = urlsplit(settings.client.url)
    if parts.port is None or not is_loopback(parts.hostname or ""):
        return None
    return find_key(runtime_directory(os.environ), parts.port)


def listen_credential(settings: Settings) -> str | None:
    """Give what a listener of these settings shows: its token, if it has one."""
    return None if settings.client.token is None else settings.client.token.get_secret_value()


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
