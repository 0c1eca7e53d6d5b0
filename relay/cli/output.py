"""What commands write: results to standard output, words for the person to standard error."""

from contextlib import suppress

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
        click.echo(text, nl=nl)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"Standard output can not be written: {error.strerror}.") from error


def say(sentence: str) -> None:
    """Tell the person something on standard error, at once; when it takes nothing, the command goes on without."""
    with suppress(OSError):
        click.echo(sentence, err=True)
