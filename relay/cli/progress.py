"""How far a broadcast is, on a terminal; anywhere else it is silent."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn


class BroadcastProgress:
    """A line that counts the time sent, with a bar when the length is known; a context manager."""

    def __init__(self, name: str, duration_seconds: float | None) -> None:
        """Prepare the line.

        Args:
            name: What is sent.
            duration_seconds: How long it is; None when nobody knows.
        """
        self._duration_seconds = duration_seconds
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}"),
            TextColumn("{task.fields[sent]} sent{task.fields[audience]}"),
        ]
        if duration_seconds:
            columns += [BarColumn(), TextColumn("{task.fields[position]} of " + clock_time(duration_seconds))]
        console = Console(stderr=True)
        self._progress = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=False
        )
        # A bracket in a file's name is not markup.
        shown = name.replace("[", r"\[")
        self._task = self._progress.add_task(shown, total=duration_seconds, sent="0:00", position="0:00", audience="")

    def __enter__(self) -> Self:
        """Show the line."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the line away."""
        self._progress.stop()

    def update(self, sent_seconds: float, listeners: int | None) -> None:
        """Show that this much was sent, and who listens.

        Args:
            sent_seconds: What is longer than the file has begun again.
            listeners: How many; None while nobody knows.
        """
        position = sent_seconds % self._duration_seconds if self._duration_seconds else sent_seconds
        self._progress.update(
            self._task,
            completed=position,
            sent=clock_time(sent_seconds),
            position=clock_time(position),
            audience="" if listeners is None else f" to {listeners} listener(s)",
        )


def clock_time(seconds: float) -> str:
    """Give a time as a player shows it: `1:02:03`, or `2:03` under an hour."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
