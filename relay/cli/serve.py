"""`relay serve`: run the relay until it is asked to stop."""

import asyncio
import logging
import os
from pathlib import Path

import click

from relay.adapters.configuration import load_settings
from relay.adapters.event_loop import loop_factory
from relay.adapters.logs import configure_logging
from relay.cli.app import running_relay, until_asked_to_stop
from relay.cli.options import config_option
from relay.vocabulary.settings import Settings

logger = logging.getLogger(__name__)


@click.command("serve")
@click.option("--host", help="Address to listen on; other than loopback it needs a broadcast key.")
@click.option("--port", type=int, help="TCP port to listen on; 0 takes a free one.")
@click.option("--loop", type=click.Choice(["auto", "asyncio", "uvloop"]), help="Event loop; see docs/performance.md.")
@config_option
def serve_command(host: str | None, port: int | None, loop: str | None, config_path: Path | None) -> None:
    """Run the relay until SIGTERM or Ctrl-C."""
    options = {"server.host": host, "server.port": port, "server.loop": loop}
    settings = load_settings(config_path, options, os.environ).settings
    configure_logging(settings.log)
    with asyncio.Runner(loop_factory=loop_factory(settings.server.loop)) as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    async with running_relay(settings) as relay:
        logger.info("relay ready", extra={"url": relay.url})
        await until_asked_to_stop()
    logger.info("relay stopped")
