"""What commands write: results to standard output, words for the person to standard error."""

import os
import select
import sys
from contextlib import suppress
from io import UnsupportedOperation

import click

from relay.vocabulary.errors import UserError

EXIT_USER_ERROR = 2
EXIT_FAILURE = 1


def show(text: str, *, nl: bool = True) -> None:
    """Write what a command is for to standard output, with a newline unless `nl` is false.

    Raises:
        BrokenPipeError: Nobody reads it any more.
        UserError: It can not be written for another reason.
    """
    try:
        if _is_blocking_stdout():
            click.echo(text, nl=nl)
        else:
            write_whole(sys.stdout.fileno(), (text + "\n" * nl).encode())
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"Standard output can not be written: {error.strerror}.") from error


def say(sentence: str) -> None:
    """Tell the person something on standard error, at once; when it takes nothing, the command goes on without."""
    with suppress(OSError):
        click.echo(sentence, err=True)


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of it, waiting while nobody takes more.

    A descriptor that somebody made non-blocking stays so: other processes share that flag.

    Raises:
        OSError: It can not be written.
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
    """Whether standard output can be written the ordinary way, as it can where it has no descriptor."""
    try:
        sys.stdout.flush()
        return os.get_blocking(sys.stdout.fileno())
    except (AttributeError, UnsupportedOperation):
        return True
