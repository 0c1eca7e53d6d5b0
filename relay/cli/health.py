"""`relay health`: checks a relay on this machine, as a container's health check."""

import http.client
import os
import ssl
from pathlib import Path

import click

from relay.cli.options import config_option
from relay.cli.output import show
from relay.settings.configuration import load_settings
from relay.vocabulary.errors import RelayError
from relay.vocabulary.hosts import reachable_host

TIMEOUT_SECONDS = 3.0
"""Less than the usual limit of a container, so that the error message is printed."""


@click.command("health")
@config_option
def health_command(config_path: Path | None) -> None:
    """Check whether a relay on this machine works.

    Containers use this as their health check. The exit code is 0 if the relay with these settings
    answers, and 1 if it does not.
    """
    server = load_settings(config_path, {}, os.environ).settings.server
    host = reachable_host(server.host)
    connection = http.client.HTTPConnection(host, server.port, timeout=TIMEOUT_SECONDS)
    if server.tls_certificate is not None:
        # Nothing secret is exchanged, and the certificate is for another name than this machine's.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, server.port, timeout=TIMEOUT_SECONDS, context=context)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except OSError as error:
        reason = error.strerror or error
        raise RelayError(
            f"No relay answers at {host}, port {server.port}: {reason}. Start it, or check server.port."
        ) from error
    except http.client.HTTPException as error:
        raise RelayError(
            f"The server at {host}, port {server.port}, does not answer like a relay; check server.port."
        ) from error
    finally:
        connection.close()
    if status != http.client.OK:
        raise RelayError(
            f"The server at {host}, port {server.port}, answers /healthz with HTTP {status}; check server.port."
        )
    show("ok")
