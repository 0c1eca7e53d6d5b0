"""What `relay broadcast` and `relay listen` share: arguments, settings and messages."""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from relay.cli.output import say
from relay.client import ErrorNotice, Reconnect, Reconnecting
from relay.client.page_address import PageAddress, read_page_address
from relay.settings.configuration import load_settings
from relay.settings.settings import Settings
from relay.vocabulary.errors import BadRequestError, NotAllowedError, RelayError, UserError
from relay.vocabulary.names import DEFAULT_CHANNEL, ChannelAddress
from relay.vocabulary.text import printable

session_argument = click.argument("session")

channel_option = click.option(
    "--channel", default=DEFAULT_CHANNEL, show_default=True, help="The channel of the session."
)

reconnect_option = click.option(
    "--no-reconnect",
    "reconnect",
    flag_value=None,
    default=Reconnect(),
    type=click.UNPROCESSED,
    help="Stop when the connection is lost, instead of connecting again.",
)

url_option = click.option(
    "--url", metavar="URL", help="The address of the relay, for example wss://relay.example.org. [setting: client.url]"
)


def load_client_settings(config_path: Path | None, url: str | None) -> Settings:
    """Return the settings in force, with `url` from the option of that name.

    Raises:
        ConfigurationError: The settings cannot be used.
    """
    return load_settings(config_path, {"client.url": url}, os.environ).settings


def load_destination(
    config_path: Path | None, url: str | None, session: str, channel: str
) -> tuple[Settings, ChannelAddress]:
    """Return the settings and the channel, which the person named by a session's id or by the address of its page.

    Raises:
        ConfigurationError: The settings cannot be used.
        UserError: A name is not valid, or an option contradicts the address of the page.
    """
    page = _read_page(session)
    if page is None:
        return load_client_settings(config_path, url), read_address(session, channel)
    if url is not None:
        raise UserError(
            "SESSION is the address of a page, which also names the relay: leave out --url, or give the session's id."
        )
    if page.channel is not None and channel not in (DEFAULT_CHANNEL, page.channel):
        raise UserError(
            f"SESSION is the address of a page for the channel {page.channel}: leave out --channel {channel}."
        )
    address = read_address(page.session, page.channel or channel)
    named = {"client.url": page.relay, "client.token": page.credential}
    return load_settings(config_path, named, os.environ).settings, address


def _read_page(session: str) -> PageAddress | None:
    try:
        return read_page_address(session)
    except BadRequestError as error:
        raise UserError(str(error)) from error


def broadcast_credential(settings: Settings) -> str | None:
    """Return the token or the broadcast key of the settings, if there is one."""
    for secret in (settings.client.token, settings.broadcast.key):
        if secret is not None:
            return secret.get_secret_value()
    return None


def listen_credential(settings: Settings) -> str | None:
    """Return the token of the settings, if there is one."""
    return None if settings.client.token is None else settings.client.token.get_secret_value()


def read_address(session: str, channel: str) -> ChannelAddress:
    """Return the channel that the person named.

    Raises:
        UserError: A name is not valid, or the session is the address of a page.
    """
    page = _read_page(session)
    if page is not None:
        raise UserError(
            f"SESSION must be the id of a session here: give {page.session}, and name the relay with --url "
            f"{page.relay}."
        )
    try:
        return ChannelAddress(session, channel)
    except BadRequestError as error:
        raise UserError(str(error)) from error


def run(work: Coroutine[object, object, None], credentials: str = "RELAY_CLIENT_TOKEN") -> None:
    """Run a client until it ends. `credentials` is what a person should check when the relay refuses it.

    Where the client does not handle signals, and while it stops, Ctrl-C ends the process.
    """
    try:
        asyncio.run(_without_proxy_noise(work))
    except NotAllowedError as error:
        raise NotAllowedError(f"{error} Check {credentials}.") from error


async def _without_proxy_noise(work: Coroutine[object, object, None]) -> None:
    """Await `work`, without the traceback when a proxy ends a connection; an error message reports that failure.

    The library reads the end of such a connection twice, which raises `EOFError` in a callback.
    """

    def tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), EOFError):
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(tell)
    await work


@contextmanager
def first_error() -> Iterator[None]:
    """Raise a single error in place of a task group's errors.

    Raises:
        RelayError: The first error of the group, if all its errors are meant for the person.
    """
    try:
        yield
    except ExceptionGroup as group:
        expected, others = group.split(RelayError)
        if expected is None or others is not None:
            raise
        raise expected.exceptions[0] from group


class ConnectionTeller:
    """Reports the state of the connection to the person, without repeating failed attempts or reasons."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._objection: str | None = None

    def objects(self, notice: ErrorNotice) -> None:
        """Print the relay's objection. If the relay closes the connection for it, `lost` does not repeat it."""
        self._objection = printable(notice.message)
        say(f"the relay says: {self._objection}")

    def lost(self, event: Reconnecting) -> None:
        """Print why the connection was lost, and when the next attempt is."""
        if event.reason != self._reason:
            self._reason = event.reason
            reason = "" if event.reason == self._objection else f"{event.reason} "
            say(f"{reason}Trying again in {event.delay_seconds:.1f} s.")
        self._objection = None

    def back(self, how: str) -> None:
        """Print that the connection is back."""
        self._reason = None
        say(f"connected again{how}")
