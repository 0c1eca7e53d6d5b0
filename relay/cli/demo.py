"""`relay demo`: runs a relay with a recorded voice, to try the listening page in a minute."""

import os
from importlib.resources import as_file, files
from pathlib import Path

import click

from relay.cli.app import running_relay
from relay.cli.broadcast import Broadcast, broadcast
from relay.cli.client import read_address, run
from relay.cli.options import config_option
from relay.cli.output import say
from relay.media import open_audio
from relay.process.logs import configure_logging
from relay.settings.configuration import load_settings
from relay.settings.settings import AccessSettings, ClusterSettings, ServerSettings, Settings
from relay.vocabulary.names import DEFAULT_CHANNEL, ChannelAddress

SAMPLE = "counting.wav"
"""A voice that counts, so that a gap can be heard."""


@click.command("demo")
@click.option("--port", type=int, help="TCP port to listen on. 0 chooses a free port.")
@click.option("--session", default="demo", show_default=True, help="The session to broadcast to.")
@config_option
def demo_command(port: int | None, session: str, config_path: Path | None) -> None:
    """Run a relay with a voice that counts aloud, until Ctrl-C.

    The relay listens on this machine only. Everybody may listen, and there is no TLS, whatever the settings say.
    """
    loaded = load_settings(config_path, {"server.port": port}, os.environ)
    configure_logging(loaded.settings.log)
    address = read_address(session, DEFAULT_CHANNEL)
    with as_file(files("relay") / "samples" / SAMPLE) as sample:
        run(_demo(_for_everybody(loaded.settings), address, sample))


def _for_everybody(settings: Settings) -> Settings:
    """Return settings with which the links work as printed: without tokens, and on this machine only.

    The demo lets everybody in, so it does not join a cluster either, whose sessions may need a token.
    """
    own = ServerSettings()
    changes = {"host": own.host, "trusted_proxies": own.trusted_proxies, "tls_certificate": None, "tls_key": None}
    server = settings.server.model_copy(update=changes)
    access = AccessSettings(admin_key=settings.access.admin_key)
    return settings.model_copy(update={"server": server, "access": access, "cluster": ClusterSettings()})


async def _demo(settings: Settings, address: ChannelAddress, sample: Path) -> None:
    source = open_audio(sample)
    async with running_relay(settings) as relay:
        say(f"\n  Open {relay.url}/listen/{address.session} and press Play. Ctrl-C ends the demo.\n")
        await broadcast(Broadcast(relay.url, address, relay.keys.broadcast_key, source, loop=True))
