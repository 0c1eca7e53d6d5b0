"""Shows the progress of a broadcast on a terminal, and reports audio that does not arrive in real time."""

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

from relay.audio.arrival_rate import ArrivalRate, looks_like
from relay.cli.output import say
from relay.vocabulary.audio import AudioFormat


class BroadcastProgress:
    """A line with the time sent, and a bar if the length is known; a context manager. Silent without a terminal."""

    def __init__(self, name: str, duration_seconds: float | None) -> None:
        """The line shows `name`; `duration_seconds` is None if it is unknown."""
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
        # A bracket in a file's name is not markup, so it is escaped.
        shown = name.replace("[", r"\[")
        self._task = self._progress.add_task(shown, total=duration_seconds, sent="0:00", position="0:00", audience="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, sent_seconds: float, listeners: int | None) -> None:
        """Update the line.

        Args:
            sent_seconds: Time sent. Beyond the length of the file, it has started again.
            listeners: Number of listeners; None if it is unknown.
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
    """Format a time as a player shows it: `1:02:03`, or `2:03` under an hour."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


_PATIENCE_SECONDS = 3.0
"""How long the relay's measurement waits for that of the pipe. Both judge ten seconds, but not the same ones."""


class SpeedTeller:
    """Reports when audio stops arriving in real time, and when it does so again.

    This needs the view of both ends. Audio that a live pipe delivers too fast waits here, so the relay never sees it.
    Only the relay sees the delay of the network.
    """

    def __init__(self, announced: AudioFormat) -> None:
        self._announced = announced
        self._pipe = ArrivalRate()
        self._at_relay: float | None = None
        self._told: float | None = None
        self._now: float | None = None
        self._waits_until = 0.0

    def note(self, seconds: float, now: float, *, is_held: bool) -> None:
        """Record audio from a live pipe; `is_held` says whether the pipe has to wait from now on."""
        self._now = now
        is_over = 0 < self._waits_until <= now
        if self._pipe.note(seconds, now, is_held=is_held) or is_over:
            self._waits_until = 0.0
            self._tell()

    def note_relay(self, ratio: float | None) -> None:
        """Record the relay's measurement: the speed as a multiple of real time, or None if it is right."""
        if ratio == self._at_relay:
            return
        self._at_relay = ratio
        if self._now is None or ratio is None or self._pipe.ratio is not None:
            self._tell()
        else:
            # The pipe is about to show the same, and knows more: whether it is the source or the network.
            self._waits_until = self._now + _PATIENCE_SECONDS

    def _tell(self) -> None:
        pipe = self._pipe.ratio
        usual = "" if pipe is None else looks_like(self._announced, pipe)
        if pipe is not None and pipe > 1 and not usual:
            # A pipe that can wait may deliver as fast as it likes.
            pipe = None
        ratio = pipe or self._at_relay
        if ratio is None:
            if self._told is not None:
                say("the audio arrives in real time again")
        elif self._told is None or (ratio > 1) is not (self._told > 1):
            if usual:
                why = f"announced as {self._announced}, it looks like {usual}; set --rate and --channels for raw PCM"
            elif pipe is None:
                why = "this machine or the network is too slow" if ratio < 1 else "the relay has to hold it back"
            else:
                why = "its source is too slow, or the audio has another format than announced"
            say(f"the audio arrives {ratio:.2f} times as fast as real time: {why}")
        self._told = ratio
