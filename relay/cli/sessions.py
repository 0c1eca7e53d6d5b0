"""`relay sessions`: shows an operator the sessions of a relay, ends them, and disconnects clients."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from rich.cells import cell_len

from relay.access.local_key import LocalKey, find_local_key
from relay.cli.client import load_client_settings, read_address, session_argument, url_option
from relay.cli.options import config_option, given_before
from relay.cli.output import say, show
from relay.client.operator_client import TIMEOUT_SECONDS, ask_relay
from relay.client.transport.failures import network_error
from relay.client.transport.proxy import find_proxy
from relay.settings.settings import Settings
from relay.vocabulary.errors import UserError
from relay.vocabulary.names import DEFAULT_CHANNEL
from relay.vocabulary.text import printable

Row = Sequence[str]

_PATH = "/v1/sessions"
_NOTHING = "–"

json_option = click.option("--json", "as_json", is_flag=True, help="Print the relay's answer as JSON.")


@click.group("sessions", invoke_without_command=True)
@json_option
@url_option
@config_option
@click.pass_context
def sessions_command(context: click.Context, as_json: bool, url: str | None, config_path: Path | None) -> None:
    """Show and end the sessions of a relay.

    \b
    relay sessions
    relay sessions show ev1
    relay sessions end ev1 --channel de
    relay sessions disconnect ev1 0b5f7a1e-…

    Without a subcommand, the command lists the sessions with their channels.

    The command needs a token with the role admin (RELAY_CLIENT_TOKEN), or the relay's admin key
    (RELAY_ACCESS_ADMIN_KEY). An option would show them in the list of processes. If a relay on this
    machine made its own keys, the command finds the admin key by itself.
    """  # noqa: D301 - \b is click's mark for lines that are kept
    if context.invoked_subcommand is not None:
        return
    answer = _ask(context, "GET", _PATH, url, config_path)
    if as_json:
        _print_json(answer)
        return
    sessions = answer.get("sessions") or []
    if sessions:
        show(render_table(channel_rows(sessions)))
        _tell_not_listed(answer)
    else:
        say("there are no sessions")
    _tell_silent_nodes(answer)


@sessions_command.command("show")
@session_argument
@json_option
@url_option
@config_option
@click.pass_context
def show_command(
    context: click.Context, *, session: str, as_json: bool, url: str | None, config_path: Path | None
) -> None:
    """Show SESSION with its connections.

    The command lists all broadcasters, and the 100 listeners with the worst reception.
    """
    answer = _ask(context, "GET", _session_path(session), url, config_path)
    if given_before(context, "as_json", as_json):
        _print_json(answer)
        return
    show(render_table(channel_rows([answer])))
    _tell_not_listed(answer)
    connections = connection_rows(answer)
    if len(connections) > 1:
        show("\n" + render_table(connections))
    shown = len(answer.get("worst_listeners") or [])
    if (listeners := answer.get("listeners", shown)) > shown:
        say(f"{listeners} listeners; the table shows the {shown} that are furthest behind or lost the most audio")
    _tell_silent_nodes(answer)


@sessions_command.command("end")
@session_argument
@click.option("--channel", help="End only this channel.")
@url_option
@config_option
@click.pass_context
def end_command(
    context: click.Context, *, session: str, channel: str | None, url: str | None, config_path: Path | None
) -> None:
    """End SESSION at once, or one of its channels.

    Listeners still hear the audio that was already released. Audio of pace speech that still waits is
    discarded. Broadcasters are disconnected. The session starts again when somebody broadcasts to it.
    """
    answer = _ask(context, "DELETE", _session_path(session, channel), url, config_path)
    for ended in answer.get("ended") or []:
        show(f"ended {session}/{ended}")
    _tell_silent_nodes(answer)


@sessions_command.command("disconnect")
@session_argument
@click.argument("connection_id")
@url_option
@config_option
@click.pass_context
def disconnect_command(
    context: click.Context, *, session: str, connection_id: str, url: str | None, config_path: Path | None
) -> None:
    """Disconnect one listener or broadcaster of SESSION.

    `relay sessions show SESSION` lists the connection ids. The client does not reconnect by itself, but
    a person can connect again. To prevent that, withdraw the token (docs/access.md).
    """
    path = f"{_session_path(session)}/connections/{quote(connection_id, safe='')}"
    answer = _ask(context, "DELETE", path, url, config_path)
    show(f"disconnected {connection_id} ({answer.get('role')}) from {session}/{answer.get('channel')}")


def _session_path(session: str, channel: str | None = None) -> str:
    read_address(session, DEFAULT_CHANNEL if channel is None else channel)
    return f"{_PATH}/{session}" if channel is None else f"{_PATH}/{session}/{channel}"


def _ask(context: click.Context, method: str, path: str, url: str | None, config_path: Path | None) -> dict[str, Any]:
    """Send a request to the relay that the options name, before or after the subcommand's name."""
    settings = load_client_settings(
        given_before(context, "config_path", config_path), given_before(context, "url", url)
    )
    address = settings.client.url
    try:
        return ask_relay(address, method, path, _operator_credential(settings))
    except OSError as error:
        problem = network_error(address, error, TIMEOUT_SECONDS)
        proxy = find_proxy(address)
        if proxy is not None:
            raise type(problem)(f"{problem} This command connects directly, not through {proxy}.") from error
        raise problem from error


def _operator_credential(settings: Settings) -> str:
    """Return an operator's credential from the settings, or the key of a relay on this machine."""
    for secret in (settings.client.token, settings.access.admin_key):
        if secret is not None:
            return secret.get_secret_value()
    key = find_local_key(settings.client.url, LocalKey.ADMIN)
    if key is None:
        raise UserError(
            f"There is no operator's credential for {settings.client.url}. Set RELAY_CLIENT_TOKEN to a token with the "
            "role admin, or RELAY_ACCESS_ADMIN_KEY to the relay's admin key."
        )
    return key


def _print_json(answer: dict[str, Any]) -> None:
    # Escaped to ASCII, so that no name in it can control a terminal.
    show(json.dumps(answer, indent=2))


def _tell_not_listed(answer: dict[str, Any]) -> None:
    if not_listed := answer.get("not_listed"):
        say(f"{not_listed} more channels are not shown; the table has those with a broadcaster or the most listeners")


def _tell_silent_nodes(answer: dict[str, Any]) -> None:
    if silent := answer.get("silent_nodes"):
        say(f"these nodes of the cluster did not answer: {', '.join(map(_text, silent))}")


def channel_rows(sessions: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return a row of titles, then a row for each channel of the sessions."""
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
    """Return a row of titles, then a row for each listed connection of a session. A cluster adds a column of nodes."""
    titles = ("connection", "role", "channel", "codec", "client", "lag", "delivered", "lost", "blocked", "player")
    rows = [titles, *_broadcaster_rows(session), *_listener_rows(session)]
    nodes = ["node", *(_text(each.get("node")) for each in (*_broadcasters(session), *_listeners(session)))]
    return rows if "silent_nodes" not in session else [(*row, node) for row, node in zip(rows, nodes, strict=True)]


def render_table(rows: Sequence[Row]) -> str:
    """Format rows as lines. Each column is as wide as its widest text on a terminal."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _broadcasters(session: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    channels = session.get("channels") or []
    return [{**channel, **channel["broadcaster"]} for channel in channels if channel.get("broadcaster")]


def _broadcaster_rows(session: Mapping[str, Any]) -> Iterator[Row]:
    for broadcaster in _broadcasters(session):
        names = (
            broadcaster.get("connection_id"),
            "broadcast",
            broadcaster.get("id"),
            (broadcaster.get("format") or {}).get("codec"),
            broadcaster.get("client_address"),
        )
        yield *map(_text, names), *(_NOTHING,) * 5


def _listeners(session: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return session.get("worst_listeners") or []


def _listener_rows(session: Mapping[str, Any]) -> Iterator[Row]:
    for listener in _listeners(session):
        yield (
            _text(listener.get("connection_id")),
            "listen",
            _text(listener.get("channel")),
            _text(listener.get("codec")),
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
    codec = "Opus " if audio_format.get("codec") == "opus" else ""
    return f"{codec}{_text(audio_format.get('rate'))} Hz {sound} {_text(channel.get('pace'))}{speed}"


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
