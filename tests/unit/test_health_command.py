"""`relay health`: what it reports about a port, and that a check costs little."""

import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from relay.cli.health import health_command
from relay.vocabulary.errors import RelayError
from tests.support.ports import free_port


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Run a server that gives every client the same answer. Yield its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(answer)

    with socketserver.TCPServer(("127.0.0.1", free_port()), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            b"SSH-2.0-OpenSSH_9.9\r\n",
            "The server at 127.0.0.1, port {}, does not answer like a relay; check server.port.",
        ),
        (
            b"HTTP/1.1 404 Not Found\r\n\r\n",
            "The server at 127.0.0.1, port {}, answers /healthz with HTTP 404; check server.port.",
        ),
        (
            b"",
            (
                "No relay answers at 127.0.0.1, port {}: Remote end closed connection without response. "
                "Start it, or check server.port."
            ),
        ),
    ],
)
def test_what_is_no_relay_that_is_well_is_one_sentence(answer: bytes, sentence: str) -> None:
    with answering(answer) as port:
        result = CliRunner().invoke(health_command, env={"RELAY_SERVER_PORT": str(port)})
    assert isinstance(result.exception, RelayError)
    assert str(result.exception) == sentence.format(port)


def test_a_check_every_few_seconds_does_not_load_a_server() -> None:
    code = "import sys, relay.cli.health; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"websockets", "aiobotocore", "jwt", "relay.server"} & set(loaded)
