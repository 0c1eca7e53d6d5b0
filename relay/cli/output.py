"""What commands write: results to standard output, messages for the person to standard error."""

import os
import select
import sys
from contextlib import suppress
from io import UnsupportedOperation

import click

from relay.vocabulary.errors import UserError

EXIT_USER_ERROR = 2
EXIT_FAILURE = 1

EXAMPLE_SESSION = "ev1"
"""The session in the links of `relay serve`."""


def show(text: str, *, nl: bool = True) -> None:
    """Write a result to standard output, with a newline unless `nl` is false.

    Raises:
        BrokenPipeError: Nothing reads standard output any more.
        UserError: Standard output cannot be written for another reason.
    """
    try:
        if _is_blocking_stdout():
            click.echo(text, nl=nl)
        else:
            write_whole(sys.stdout.fileno(), (text + "\n" * nl).encode())
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"Standard output cannot be written: {error.strerror}.") from error


def say(sentence: str) -> None:
    """Print a message on standard error at once. If this fails, the command continues without it."""
    with suppress(OSError):
        click.echo(sentence, err=True)


def show_links(url: str, broadcast_key: str | None) -> None:
    """Print the links of a relay, with the key that it made and that nobody else has."""
    links = (
        f"\n  Broadcast  {url}/broadcast/{EXAMPLE_SESSION}#key={broadcast_key}"
        f"\n  Listen     {url}/listen/{EXAMPLE_SESSION}"
        f"\n\n  Replace {EXAMPLE_SESSION} to use another session. The key is valid until the relay stops.\n"
    )
    # If standard output is closed, nobody wants the links.
    with suppress(OSError):
        click.echo(links)


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of `data`, and wait while the reader takes no more.

    A non-blocking descriptor stays non-blocking, because other processes share that flag.

    Raises:
        OSError: The descriptor cannot be written.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


def _is_blocking_stdout() -> bool:
    """Return whether standard output can be written the ordinary way, as it can if it has no descriptor."""
    try:
        sys.stdout.flush()
        return os.get_blocking(sys.stdout.fileno())
    except (AttributeError, UnsupportedOperation):
        return True
