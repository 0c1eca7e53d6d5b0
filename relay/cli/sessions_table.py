"""What a relay answers its operator, as tables for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from relay.vocabulary.text import printable

_NOTHING = "–"

Row = Sequence[str]


def channel_rows(sessions: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Give a row for each channel of the sessions, behind one of titles."""
    titles = ("session", "channel", "name", "state", "audio", "listeners", "waiting", "lost frames", "broadcaster")
    rows = [
        (
            _text(session.get("id")),
            _text(channel.get("id")),
            _text(channel.get("name")),
            _state(channel),
            _audio(channel),
            _text(channel.get("listeners")),
            _seconds_of_ms(channel.get("queued_ms")),
            _text(channel.get("dropped_frames")),
            _text((channel.get("broadcaster") or {}).get("client_address")),
        )
        for session in sessions
        for channel in session.get("channels") or []
    ]
    return [titles, *rows]


def connection_rows(session: Mapping[str, Any]) -> list[Row]:
    """Give a row for each connection that is shown of a session, behind one of titles."""
    titles = ("connection", "role", "channel", "client", "lag", "delivered", "lost", "blocked", "player")
    return [titles, *_broadcaster_rows(session), *_listener_rows(session)]


def render_table(rows: Sequence[Row]) -> str:
    """Give rows as lines, with columns as wide as their widest text on a terminal."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _broadcaster_rows(session: Mapping[str, Any]) -> Iterator[Row]:
    for channel in session.get("channels") or []:
        broadcaster = channel.get("broadcaster")
        if broadcaster:
            names = (
                broadcaster.get("connection_id"),
                "broadcast",
                channel.get("id"),
                broadcaster.get("client_address"),
            )
            yield *map(_text, names), *(_NOTHING,) * 5


def _listener_rows(session: Mapping[str, Any]) -> Iterator[Row]:
    for listener in session.get("worst_listeners") or []:
        yield (
            _text(listener.get("connection_id")),
            "listen",
            _text(listener.get("channel")),
            _text(listener.get("client_address")),
            _milliseconds(listener.get("lag_ms")),
            _seconds(listener.get("delivered_seconds")),
            _seconds(listener.get("dropped_seconds")),
            _seconds(listener.get("blocked_seconds")),
            _report(listener.get("report")),
        )


def _state(channel: Mapping[str, Any]) -> str:
    state, silence = _text(channel.get("state")), channel.get("silence")
    return state if silence is None else f"{state}, {_text(silence)}"


def _audio(channel: Mapping[str, Any]) -> str:
    audio_format = channel.get("format")
    if not audio_format:
        return _NOTHING
    sound = "stereo" if audio_format.get("channels") == 2 else "mono"  # noqa: PLR2004 - channels are one or two
    rate = channel.get("arrival_rate")
    speed = f" at {rate:.2f} times real time" if isinstance(rate, int | float) else ""
    return f"{_text(audio_format.get('rate'))} Hz {sound} {_text(channel.get('pace'))}{speed}"


def _report(report: Mapping[str, Any] | None) -> str:
    if not report:
        return _NOTHING
    return (
        f"delay {_milliseconds(report.get('playout_ms'))}, buffer {_milliseconds(report.get('buffer_ms'))}, "
        f"ran dry {_text(report.get('underruns'))}, jumped {_text(report.get('jumps'))}"
    )


def _text(value: object) -> str:
    return _NOTHING if value is None or value == "" else printable(str(value))


def _milliseconds(value: object) -> str:
    return f"{value:.0f} ms" if isinstance(value, int | float) else _NOTHING


def _seconds(value: object) -> str:
    return f"{value:.1f} s" if isinstance(value, int | float) else _NOTHING


def _seconds_of_ms(value: object) -> str:
    return _seconds(value / 1000) if isinstance(value, int | float) else _NOTHING
