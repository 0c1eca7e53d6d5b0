"""What `relay broadcast` and `relay listen` share: arguments, settings, and words for the person."""

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from relay.cli.output import say
from relay.client import Reconnect, Reconnecting
from relay.client.page_address import PageAddress, read_page_address
from relay.process.early_signals import let_end
from relay.settings.configuration import load_settings
from relay.settings.settings import Settings
from relay.vocabulary.errors import BadRequestError, RelayError, UserError
from relay.vocabulary.names import DEFAULT_CHANNEL, ChannelAddress

_INTERRUPTED = 130
"""The exit code of shells for a program that SIGINT ended: 128 and the signal's number."""

session_argument = click.argument("session")

channel_option = click.option(
    "--channel", default=DEFAULT_CHANNEL, show_default=True, help="The audio track of the session."
)

reconnect_option = click.option(
    "--no-reconnect",
    "reconnect",
    flag_value=None,
    default=Reconnect(),
    type=click.UNPROCESSED,
    help="Stop when the connection is lost.",
)

url_option = click.option(
    "--url", metavar="URL", help="The address of the relay, for example wss://relay.example.org. [setting: client.url]"
)


def load_client_settings(config_path: Path | None, url: str | None) -> Settings:
    """Give the settings in force, `url` being the option of that name.

    Raises:
        ConfigurationError: They can not be used.
    """
    return load_settings(config_path, {"client.url": url}, os.environ).settings


def load_destination(
    config_path: Path | None, url: str | None, session: str, channel: str
) -> tuple[Settings, ChannelAddress]:
    """Give the settings and the channel that the person named: by a session's id, or by the address of its page.

    Raises:
        ConfigurationError: The settings can not be used.
        UserError: There is no such name, or two things are named twice.
    """
    page = _read_page(session)
    if page is None:
        return load_client_settings(config_path, url), read_address(session, channel)
    if url is not None:
        raise UserError("SESSION is an address, which names the relay; leave --url out, or give the session's id.")
    if page.channel is not None and channel not in (DEFAULT_CHANNEL, page.channel):
        raise UserError(f"SESSION is an address of the channel {page.channel}; leave --channel {channel} out.")
    address = read_address(page.session, page.channel or channel)
    named = {"client.url": page.relay, "client.token": page.credential}
    return load_settings(config_path, named, os.environ).settings, address


def _read_page(session: str) -> PageAddress | None:
    try:
        return read_page_address(session)
    except BadRequestError as error:
        raise UserError(str(error)) from error


def broadcast_credential(settings: Settings) -> str | None:
    """Give what a broadcaster of these settings shows: its token or the broadcast key, if they have one."""
    for secret in (settings.client.token, settings.broadcast.key):
        if secret is not None:
            return secret.get_secret_value()
    return None


def listen_credential(settings: Settings) -> str | None:
    """Give what a listener of these settings shows: its token, if it has one."""
    return None if settings.client.token is None else settings.client.token.get_secret_value()


def read_address(session: str, channel: str) -> ChannelAddress:
    """Give the channel that the person named.

    Raises:
        UserError: One of the names can not be one.
    """
    page = _read_page(session)
    if page is not None:
        raise UserError(f"This takes the id of a session, here {page.session}; name the relay with --url {page.relay}.")
    try:
        return ChannelAddress(session, channel)
    except BadRequestError as error:
        raise UserError(str(error)) from error


def run(work: Coroutine[object, object, None]) -> None:
    """Run a client until it ends.

    Ctrl-C while nothing is there that could end in order, and a second one while it does, exits with code 130.
    """
    let_end(signal.SIGINT)
    try:
        asyncio.run(_without_proxy_noise(work))
    except KeyboardInterrupt:
        raise click.exceptions.Exit(_INTERRUPTED) from None


async def _without_proxy_noise(work: Coroutine[object, object, None]) -> None:
    """Do the work, and leave out the traceback of a proxy that ends a connection: its failure is told in a sentence.

    The library reads the end of such a connection twice, which raises `EOFError` in a callback.
    """

    def tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), EOFError):
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(tell)
    await work


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


class ConnectionTeller:
    """Tells the person what becomes of the connection; of tries that fail alike, only the first."""

    def __init__(self) -> None:
        """Begin with a connection that is there."""
        self._reason: str | None = None

    def lost(self, event: Reconnecting) -> None:
        """Tell that it is gone."""
        if event.reason != self._reason:
            self._reason = event.reason
            say(f"{event.reason} Trying again in {event.delay_seconds:.1f} s.")

    def back(self, how: str) -> None:
        """Tell that it is there again."""
        self._reason = None
        say(f"connected again{how}")
