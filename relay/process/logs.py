"""Logs: all modules use the standard library's `logging`, and structlog renders the lines on standard error.

To log from any layer that may, create `logger = logging.getLogger(__name__)`. The message is a constant sentence in
lower case. Everything that varies goes into `extra`, never into the message:

    logger.info("broadcaster joined", extra={"session": "ev1", "channel": "main"})

A person reads this as `… [info] broadcaster joined [relay.hub.channel] session='ev1' channel='main'`. A machine reads
one JSON object with these members. `extra` must not use the names of a `LogRecord`'s own attributes (`name`, `message`,
`args`, …; the library raises) nor `event`, `level`, `logger` and `timestamp`. In a cluster, each line has the `node`.

Invariants:
- Nothing that a peer sends can forge a line or control the terminal: unprintable characters are escaped, and a
  traceback is indented.
- Logging never waits for standard error. A thread writes the lines. When `MAX_WAITING_LINES` wait, further lines are
  dropped, and their number is logged as soon as lines can be written again.
- A peer cannot flood the log. Of lines with a traceback, one of each kind is written in `TRACEBACK_SECONDS`; of lines
  with `may_repeat` in their `extra`, `MAX_REPEATS` in `REPEAT_SECONDS`. `may_repeat` is True, or a text that separates
  kinds of the same sentence. Lines of an ordinary life have `is_ordinary`: `MAX_ORDINARY` in `ORDINARY_SECONDS` leave
  room for an event with many channels that begins or ends. The number of omitted lines is logged before the next line,
  and at the end.
- A peer's mistake never shows a traceback. Libraries that log much, or that would log headers and so keys, are held one
  level above the relay's own.
"""

import contextlib
import errno
import io
import logging
import math
import os
import queue
import re
import sys
import threading
from collections.abc import Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TextIO

import structlog
from structlog.typing import ExcInfo, Processor

from relay.settings.settings import LogSettings
from relay.vocabulary.clock import relay_clock

MAX_WAITING_LINES = 10_000
"""Lines that wait for standard error, some megabytes. This covers any burst that a pager or a pipe delays."""

TRACEBACK_SECONDS = 60.0
REPEAT_SECONDS = 10.0
MAX_REPEATS = 10
ORDINARY_SECONDS = 100.0
MAX_ORDINARY = 100

MAX_KINDS = 1000
"""Kinds of repeated lines that are remembered, some hundred bytes each. Beyond them, all others count as one kind. The
relay has fewer sentences than this."""

FLUSH_TIMEOUT_SECONDS = 2.0
"""How long the end of the process waits for lines to be written. A blocked pipe must not keep the process alive."""

_LIBRARIES = ("websockets", "aiobotocore", "botocore", "asyncio", "py.warnings")
_PEER_ERRORS = (ConnectionError, EOFError, TimeoutError)
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_TRACEBACK_INDENT = "    "
_CONSTANT_WORDS = re.compile(r"[^\n(<]*")
"""The beginning of a message. After it, a message of an event loop names objects and their addresses in memory."""

_OTHERS = "others"

_EventDict = MutableMapping[str, Any]
"""structlog's name for the value that its processors pass on."""


def configure_logging(settings: LogSettings, stream: TextIO | None = None, **fields: object) -> None:
    """Send all logs to `stream`. A further call replaces the previous configuration.

    Args:
        settings: Level and format.
        stream: Standard error if None.
        fields: Fields of every line that has none of this name.
    """
    stream = sys.stderr if stream is None else stream
    on_terminal = stream is not None and stream.isatty()
    as_console = settings.format == "console" or (settings.format == "auto" and on_terminal)
    handler = _WriterHandler(stream, fields)
    handler.setFormatter(_console_formatter(on_terminal) if as_console else _json_formatter())
    handler.addFilter(_demote_peer_errors)
    handler.addFilter(_shorten_exhaustion)
    root = logging.getLogger()
    for former in [former for former in root.handlers if isinstance(former, _WriterHandler)]:
        root.removeHandler(former)
        former.flush()
        former.close()
    root.addHandler(handler)
    set_log_level(settings)
    logging.captureWarnings(capture=True)


def add_log_fields(**fields: object) -> None:
    """Add fields to all further lines that have none of this name."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _WriterHandler):
            handler.fields |= fields


def set_log_level(settings: LogSettings) -> None:
    """Set the log level from `settings`, now or while the relay runs."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    logging.getLogger().setLevel(level)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.INFO if level < logging.INFO else max(level, logging.WARNING))


def _demote_peer_errors(record: logging.LogRecord) -> bool:
    """Drop errors of the websockets library about connections that peers broke; our own keep their traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None or not record.name.startswith("websockets"):
        return True
    return not (isinstance(error, _PEER_ERRORS) or type(error).__module__.startswith("websockets."))


def _shorten_exhaustion(record: logging.LogRecord) -> bool:
    """Omit the traceback when asyncio cannot accept a connection: there may be many, and all are the same."""
    error = record.exc_info[1] if record.exc_info else None
    if record.name == "asyncio" and isinstance(error, OSError) and error.errno in _EXHAUSTED:
        record.exc_info = None
    return True


def _console_formatter(on_terminal: bool) -> logging.Formatter:
    renderer = structlog.dev.ConsoleRenderer(
        colors=on_terminal and "NO_COLOR" not in os.environ,
        repr_native_str=True,
        exception_formatter=_indented_traceback,
        sort_keys=False,
    )
    return _formatter([_escape_event, renderer])


def _json_formatter() -> logging.Formatter:
    return _formatter([structlog.processors.format_exc_info, _order_members, structlog.processors.JSONRenderer()])


def _formatter(render: Sequence[Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.ExtraAdder(),
            _drop_rendered,
            _plain_values,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )


def _drop_rendered(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    """Drop what another handler's formatter added to the record; `extra` cannot contain these names."""
    for key in ("message", "asctime"):
        event.pop(key, None)
    return event


def _plain_values(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    """Convert addresses, enums and other objects to text."""
    for key, value in event.items():
        is_plain = isinstance(value, (str, int, float, list, tuple, dict, type(None))) and not isinstance(value, Enum)
        if key[0] != "_" and not is_plain:
            event[key] = str(value)
    return event


def _escape_event(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    event["event"] = _printable(event["event"].rstrip())
    return event


def _order_members(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    first = ("timestamp", "level", "event", "logger")
    return {key: event.pop(key) for key in first} | dict(event)


def _indented_traceback(out: TextIO, error: ExcInfo) -> None:
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, error)
    lines = plain.getvalue().strip("\n").split("\n")
    out.writelines(f"\n{_TRACEBACK_INDENT}{_printable(line)}" for line in lines)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


@dataclass(slots=True)
class _Kind:
    """The present interval of one kind.

    Attributes:
        ends_at: When the interval ends.
        written: Lines that were written.
        left_out: Lines that were omitted.
    """

    ends_at: float
    written: int = 0
    left_out: int = 0


class Repeats:
    """Decides which repeated lines are written, and counts the others. Time is an argument, in seconds."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}

    def admit(self, kind: Hashable, most: int, interval_seconds: float, now: float) -> bool:
        """Return whether to write a line of this kind, at most `most` per interval. Otherwise count it as omitted."""
        known = self._kinds.get(kind)
        if known is None:
            kind = kind if len(self._kinds) < MAX_KINDS else _OTHERS
            known = self._kinds.setdefault(kind, _Kind(now + interval_seconds))
        if known.written < most:
            known.written += 1
            return True
        known.left_out += 1
        return False

    def over(self, now: float) -> list[tuple[Hashable, int]]:
        """End the intervals that are over. Return each kind with omitted lines, and their number."""
        ended = {kind: known for kind, known in self._kinds.items() if known.ends_at <= now}
        for kind in ended:
            del self._kinds[kind]
        return [(kind, known.left_out) for kind, known in ended.items() if known.left_out]


class _WriterHandler(logging.Handler):
    """Renders lines in the thread that logs, and writes them in its own thread; see the module's invariants.

    Attributes:
        fields: Fields of every line that has none of this name.
    """

    def __init__(self, stream: TextIO | None, fields: Mapping[str, object]) -> None:
        super().__init__()
        self.fields = dict(fields)
        self._stream = stream
        self._repeats = Repeats()
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING_LINES)
        # Only the logging side changes the first, and only the writing thread the second, so neither needs a lock.
        self._dropped_lines = 0
        self._told_lines = 0
        threading.Thread(target=self._write_lines, name="log writer", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        now = relay_clock()
        self._tell_repeats(now)
        if self._is_wanted(record, now):
            self._write(record)

    def _is_wanted(self, record: logging.LogRecord, now: float) -> bool:
        """Return whether to write a record, or only to count it."""
        may_repeat = record.__dict__.pop("may_repeat", False)
        is_ordinary = record.__dict__.pop("is_ordinary", False)
        if record.exc_info:
            constant_words = _CONSTANT_WORDS.findall(str(record.msg))[0].rstrip()
            kind = (constant_words, record.name, record.exc_info[0])
            return self._repeats.admit(kind, 1, TRACEBACK_SECONDS, now)
        kind = (record.msg, record.name, may_repeat)
        if may_repeat:
            return self._repeats.admit(kind, MAX_REPEATS, REPEAT_SECONDS, now)
        return not is_ordinary or self._repeats.admit(kind, MAX_ORDINARY, ORDINARY_SECONDS, now)

    def _tell_repeats(self, now: float) -> None:
        for kind, left_out in self._repeats.over(now):
            like, _, of = kind if isinstance(kind, tuple) else (kind, "", None)
            fields = {"like": like, **({"of": of} if isinstance(of, str) else {}), "lines": left_out}
            self._write(_own_record("similar log lines were left out", **fields))

    def _write(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self._render(record))
        except queue.Full:
            self._dropped_lines += 1
        except Exception:  # noqa: BLE001 - the library's rule for handlers: a line that cannot be rendered breaks nothing
            self.handleError(record)

    def _render(self, record: logging.LogRecord) -> str:
        for name, value in self.fields.items():
            record.__dict__.setdefault(name, value)
        return self.format(record)

    def flush(self) -> None:
        """Report omitted lines, and wait until all lines are written, at most `FLUSH_TIMEOUT_SECONDS`."""
        self.acquire()
        try:
            self._tell_repeats(math.inf)
        finally:
            self.release()
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, FLUSH_TIMEOUT_SECONDS)

    def close(self) -> None:
        """End the thread after the lines that wait. To wait for that, call `flush` first."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        super().close()

    def _write_lines(self) -> None:
        while (line := self._lines.get()) is not None:
            lost = self._dropped_lines - self._told_lines
            try:
                if self._stream is not None:
                    self._stream.write(f"{line}\n{self._loss(lost)}")
                    self._stream.flush()
                self._told_lines += lost
            except (OSError, ValueError):
                self._told_lines -= 1  # standard error is closed or full, so this line is lost, too
            finally:
                self._lines.task_done()

    def _loss(self, lost: int) -> str:
        """Return the line that reports dropped lines, or an empty text."""
        if not lost:
            return ""
        sentence = "log lines were lost because standard error was blocked"
        record = _own_record(sentence, lines=lost)
        return f"{self._render(record)}\n"


def _own_record(sentence: str, **fields: object) -> logging.LogRecord:
    """Create a warning about the log itself, which passes no logger."""
    return logging.makeLogRecord(
        {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": sentence, **fields}
    )
