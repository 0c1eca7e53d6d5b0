"""`relay serve`: runs the relay until a signal stops it. SIGHUP makes it read its configuration again."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import click

from relay.access.local_key import LocalKey
from relay.cli.app import running_relay
from relay.cli.options import config_option
from relay.cli.output import show_links
from relay.cli.reload import Reload
from relay.cli.workers import serve_as_worker, serve_with_workers
from relay.process.cores import usable_cores
from relay.process.event_loop import loop_factory
from relay.process.logs import configure_logging
from relay.process.stopping import first_of, reload_signal, stop_signals
from relay.settings.configuration import load_settings
from relay.settings.settings import Settings
from relay.vocabulary.errors import RelayError

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
@click.option("--workers", help="Number of processes that serve the port together. auto is one for each core.")
@click.option("--supervised", "is_supervised", is_flag=True, hidden=True, help="Serve as a worker of another process.")
@config_option
def serve_command(
    *,
    host: str | None,
    port: int | None,
    loop: str | None,
    workers: str | None,
    is_supervised: bool,
    config_path: Path | None,
) -> None:
    """Run the relay until SIGTERM or Ctrl-C.

    SIGHUP makes it read its configuration again.

    On loopback, a relay without a broadcast key and without token keys makes a key. On standard output,
    it prints a link to the broadcasting page that contains the key. `relay broadcast` and `relay sessions`
    of the same user find the keys by themselves.
    """
    options = {"server.host": host, "server.port": port, "server.loop": loop, "server.workers": workers}

    def read() -> Settings:
        return load_settings(config_path, options, os.environ).settings

    if is_supervised:
        serve_as_worker(read)
        return
    settings = read()
    configure_logging(settings.log)
    count = usable_cores() if settings.server.workers == "auto" else settings.server.workers
    if count > 1:
        serve_with_workers(settings, read, count)
        return
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
                        show_links(relay.url, relay.keys.broadcast_key)
                await first_of(asked, relay.broken)
    logger.info("relay stopped")
    if relay.broken.is_set():
        raise RelayError(
            "The relay stopped because of a bug; the log has the traceback. Start it again, and report the bug."
        )
