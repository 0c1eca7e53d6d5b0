"""`relay serve`: runs the relay until a signal stops it. SIGHUP makes it read its configuration again."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import click

from relay.access.local_key import LocalKey
from relay.cli.app import RunningRelay, running_relay
from relay.cli.options import config_option
from relay.process.event_loop import loop_factory
from relay.process.logs import configure_logging, set_log_level
from relay.process.stopping import reload_signal, stop_signals
from relay.settings.configuration import KEYS, load_settings
from relay.settings.settings import Settings
from relay.vocabulary.errors import ConfigurationError, RelayError

EXAMPLE_SESSION = "ev1"
"""The session in the printed links."""

_RELOADED_SECTIONS = ("access", "limits")
_RELOADED_KEYS = (
    "broadcast.key",
    "broadcast.open",
    "log.level",
    "server.tls_certificate",
    "server.tls_key",
    "server.trusted_proxies",
)

logger = logging.getLogger(__name__)


@click.command("serve")
@click.option(
    "--host",
    help="Address to listen on, or several, separated by commas. * means all of IPv4 and IPv6. Any address other than "
    "loopback needs a broadcast key or token keys.",
)
@click.option("--port", type=int, help="TCP port to listen on. 0 chooses a free port.")
@click.option(
    "--loop", type=click.Choice(["auto", "asyncio", "uvloop"]), help="Event loop; docs/performance.md compares them."
)
@config_option
def serve_command(host: str | None, port: int | None, loop: str | None, config_path: Path | None) -> None:
    """Run the relay until SIGTERM or Ctrl-C.

    SIGHUP makes it read its configuration again.

    On loopback, a relay without a broadcast key and without token keys makes a key. On standard output,
    it prints a link to the broadcasting page that contains the key. `relay broadcast` and `relay sessions`
    of the same user find the keys by themselves.
    """
    options = {"server.host": host, "server.port": port, "server.loop": loop}

    def read() -> Settings:
        return load_settings(config_path, options, os.environ).settings

    settings = read()
    configure_logging(settings.log)
    with asyncio.Runner(loop_factory=loop_factory(settings.server.loop)) as runner:
        runner.run(_serve(settings, read))


async def _serve(settings: Settings, read: Callable[[], Settings]) -> None:
    # This comes before anything that takes time. Earlier signals were kept (relay.__main__).
    with stop_signals() as asked:
        async with running_relay(settings) as relay:
            with reload_signal(Reload(relay, settings, read)):
                if not asked.is_set():
                    logger.info("relay ready", extra={"url": relay.url})
                    if LocalKey.BROADCAST in relay.keys.made:
                        _print_links(relay)
                await _any_of(asked, relay.broken)
    logger.info("relay stopped")
    if relay.broken.is_set():
        raise RelayError(
            "The relay stopped because of a bug; the log has the traceback. Start it again, and report the bug."
        )


async def _any_of(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _print_links(relay: RunningRelay) -> None:
    """Print the relay's links, with the key that nobody else has."""
    links = (
        f"\n  Broadcast  {relay.url}/broadcast/{EXAMPLE_SESSION}#key={relay.keys.broadcast_key}"
        f"\n  Listen     {relay.url}/listen/{EXAMPLE_SESSION}"
        f"\n\n  Replace {EXAMPLE_SESSION} to use another session. The key is valid until the relay stops.\n"
    )
    # If standard output is closed, nobody wants the links.
    with contextlib.suppress(OSError):
        click.echo(links)


class Reload:
    """Reads the configuration again at each call, and applies what can change while the relay runs.

    Invariants: a configuration that cannot be used changes nothing and is one line of the log. The log never contains
    values of settings, least of all secrets. Only clients that the new keys reject are disconnected.
    """

    def __init__(self, relay: RunningRelay, settings: Settings, read: Callable[[], Settings]) -> None:
        """Call `read` for the current settings; it raises ConfigurationError if they cannot be used."""
        self._relay = relay
        self._settings = settings
        self._read = read

    def __call__(self) -> None:
        """Reload; this takes as long as reading the files."""
        try:
            settings = self._read()
            closed = self._relay.replace(settings)
        except ConfigurationError as error:
            sentence = "the configuration was not reloaded; the previous one stays in force"
            logger.error(sentence, extra={"faults": str(error)})  # noqa: TRY400 - an operator's mistake needs no traceback
            return
        set_log_level(settings.log)
        changed = [name for name in KEYS if _value(settings, name) != _value(self._settings, name)]
        later = [name for name in changed if not _is_reloaded(name)]
        logger.info(
            "configuration reloaded",
            extra={"changed": [name for name in changed if name not in later], "closing": closed},
        )
        if later:
            logger.warning("these changed settings take effect only after a restart", extra={"settings": later})
        self._settings = settings


def _value(settings: Settings, name: str) -> object:
    section, key = name.split(".")
    return getattr(getattr(settings, section), key)


def _is_reloaded(name: str) -> bool:
    return name in _RELOADED_KEYS or name.partition(".")[0] in _RELOADED_SECTIONS
