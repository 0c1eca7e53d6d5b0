"""`relay token` makes tokens; `relay token inspect` explains one."""

import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from relay.access.grants import MAX_TOKEN_CHARACTERS, Grant, Reason, RefusedError, TokenRole, join_words
from relay.access.tokens import (
    TokenKey,
    TokenVerifier,
    make_token,
    read_header,
    read_key_file,
    read_unverified_claims,
)
from relay.cli.access import read_token_keys
from relay.cli.options import config_option, given_before
from relay.cli.output import say, show
from relay.settings.configuration import load_settings
from relay.settings.settings import AccessSettings
from relay.vocabulary.clock import wall_clock
from relay.vocabulary.errors import UserError
from relay.vocabulary.names import is_pattern
from relay.vocabulary.text import LONGEST_QUOTED, quoted

_REFUSED = 1
_STANDARD_INPUT = "-"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_SECONDS = 10 * 366 * 86400
"""Ten years. A longer time is a mistake: for unlimited access, use a broadcast key."""

_LAST_TIME = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


class _Duration(click.ParamType[Any]):
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"([0-9]{1,9})([smhd])", str(value))
        seconds = int(match[1]) * _UNITS[match[2]] if match else 0
        if not 1 <= seconds <= _LONGEST_SECONDS:
            self.fail(f"{value!a} is not a duration such as 90s, 30m, 12h or 7d, of ten years at most.", param, ctx)
        return seconds


class _Pattern(click.ParamType[Any]):
    name = "pattern"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not is_pattern(str(value)):
            self.fail(f"{value!a} is not a name of A-Z a-z 0-9 . _ ~ -, in which * matches any characters.", param, ctx)
        return str(value)


key_file_option = click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with a private key, PEM or JWKS, to use instead of the keys in the settings.",
)


@click.group("token", invoke_without_command=True)
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([role.value for role in TokenRole]),
    help="What the token allows. Repeat it for several roles.",
)
@click.option(
    "--session",
    "sessions",
    multiple=True,
    type=_Pattern(),
    help="Sessions that the token is for. * matches any characters. Repeat it for several.",
)
@click.option(
    "--channel",
    "channels",
    multiple=True,
    type=_Pattern(),
    help="Channels that the token is for. Without it, all channels. Repeat it for several.",
)
@click.option(
    "--valid",
    type=_Duration(),
    default="12h",
    show_default=True,
    help="How long the token is valid: 90s, 30m, 12h, 7d.",
)
@click.option("--key-id", help="Id of the signing key. Needed if there are several.")
@key_file_option
@config_option
@click.pass_context
def token_command(
    context: click.Context,
    *,
    roles: tuple[str, ...],
    sessions: tuple[str, ...],
    channels: tuple[str, ...],
    valid: int,
    key_id: str | None,
    key_file: Path | None,
    config_path: Path | None,
) -> None:
    """Make a token to broadcast, listen or operate.

    \b
    relay token --role broadcast --session ev1 --valid 12h
    relay token --role listen --session ev1 --channel de --channel fr
    relay token --role listen --session '2026-*' --key-file keys/2026.pem

    Only the token goes to standard output. It is signed with access.token_secret, or with a private key
    of access.token_key_files. docs/access.md describes keys and tokens.
    """  # noqa: D301 - \b is click's mark for lines that are kept
    if context.invoked_subcommand is not None:
        return
    access = load_settings(config_path, {}, os.environ).settings.access
    if not roles or not sessions:
        raise UserError("A token needs --role and --session, for example: relay token --role listen --session ev1.")
    key = _choose_key(read_key_file(key_file) if key_file else read_token_keys(access), key_id)
    now = int(wall_clock())
    claims = {
        "iss": access.token_issuer,
        "aud": access.token_audience,
        "iat": now,
        "exp": now + valid,
        "role": _one_or_all(roles),
        "session": _one_or_all(sessions),
        "channel": _one_or_all(channels or ("*",)),
    }
    token = make_token(key, claims)
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise UserError(
            f"The token would be longer than the {MAX_TOKEN_CHARACTERS} characters that a relay accepts; name fewer "
            "sessions and channels, or use * in their names."
        )
    say(f"signed with the key {key.key_id} ({key.algorithm}), expires {_moment(now + valid, now)}")
    show(token)


@token_command.command("inspect")
@click.argument("token", default=_STANDARD_INPUT)
@key_file_option
@config_option
@click.pass_context
def inspect_command(context: click.Context, token: str, key_file: Path | None, config_path: Path | None) -> None:
    """Explain TOKEN: what it contains, and whether a relay would accept it.

    Without TOKEN, or with -, the command reads the token from standard input. Use that: other users of
    the machine can see the arguments of a command.

    The relay is one with these settings. --key-file replaces their keys. The exit code is 0 if the relay
    would accept the token, and 1 if not.
    """
    access = load_settings(given_before(context, "config_path", config_path), {}, os.environ).settings.access
    key_file = given_before(context, "key_file", key_file)
    keys = read_key_file(key_file) if key_file else read_token_keys(access)
    text = (_read_standard_input() if token == _STANDARD_INPUT else token).strip()
    now = wall_clock()
    try:
        _explain(text, keys, now)
        grant = TokenVerifier(keys, access.token_issuer, access.token_audience).verify(text)
        grant.check_time(now, access.token_leeway_seconds)
    except RefusedError as error:
        show(f"refused: {error.detail}{_advice(error.reason, access)}")
        sys.exit(_REFUSED)
    show(f"valid:   {_permission(grant)}")


def _choose_key(keys: Sequence[TokenKey], key_id: str | None) -> TokenKey:
    """Return the key that signs, which must be the only one that can, or the one with this id."""
    able = {key.key_id: key for key in keys if key.signing is not None}
    if key_id is not None:
        key = able.get(key_id)
        if key is None:
            raise UserError(f"There is no private key with the id {key_id!a}; {_listed(keys, able)}")
        return key
    if not able:
        raise UserError(
            f"There is no key to sign with: {_listed(keys, able)} Set RELAY_ACCESS_TOKEN_SECRET (for example from: "
            "openssl rand -hex 32), or name the file of a private key with --key-file."
        )
    if len(able) > 1:
        raise UserError(f"There are several keys to sign with. Choose one with --key-id: {', '.join(able)}.")
    return next(iter(able.values()))


def _listed(keys: Sequence[TokenKey], able: dict[str, TokenKey]) -> str:
    if able:
        return f"the ids of the private keys are: {', '.join(able)}."
    if keys:
        return f"the settings have only public keys, with the ids: {', '.join(key.key_id for key in keys)}."
    return "the settings have no keys."


def _one_or_all(words: tuple[str, ...]) -> str | list[str]:
    return words[0] if len(words) == 1 else list(words)


def _read_standard_input() -> str:
    """Return the token from standard input, which must be a pipe."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("Standard input is a terminal; pipe a token into the command: relay token inspect < token.txt.")
    return sys.stdin.buffer.read(4 * MAX_TOKEN_CHARACTERS).decode("ascii", "replace")


def _explain(token: str, keys: Sequence[TokenKey], now: float) -> None:
    """Print what a token says about itself, verified or not."""
    header = read_header(token)
    claims = read_unverified_claims(token)
    key_id = header.get("kid")
    named = next((key for key in keys if key.key_id == key_id), None)
    origin = "not a key of this relay" if named is None else f"a key of this relay, from {named.origin}"
    lines = {
        "role": _text(claims.get("role")),
        "session": _text(claims.get("session")),
        "channel": _text(claims.get("channel")),
        "issuer": _text(claims.get("iss")),
        "for": _text(claims.get("aud")),
        "from": _time(claims.get("nbf", claims.get("iat")), now),
        "expires": _time(claims.get("exp"), now),
        "key": f"{_text(key_id)}, {_text(header.get('alg'))} ({origin})",
    }
    for name, value in lines.items():
        show(f"{name + ':':<9}{value}")


def _text(value: object) -> str:
    """Format an untrusted value so that it cannot control a terminal."""
    if value is None:
        return "(none)"
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        value = ", ".join(value)
    return value if isinstance(value, str) and value.isprintable() and len(value) < LONGEST_QUOTED else quoted(value)


def _time(value: object, now: float) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LAST_TIME:
        return _moment(value, now)
    return _text(value)


def _moment(seconds: float, now: float) -> str:
    """Format a time of day, and its distance from now."""
    distance = abs(round(seconds - now))
    unit = next(unit for unit in "dhms" if distance >= 2 * _UNITS[unit] or unit == "s")
    amount = f"{round(distance / _UNITS[unit])} {unit}"
    relative = f"in {amount}" if seconds >= now else f"{amount} ago"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC ({relative})"


def _permission(grant: Grant) -> str:
    return f"{join_words(grant.roles)}: sessions {join_words(grant.sessions)}; channels {join_words(grant.channels)}"


def _advice(reason: Reason, access: AccessSettings) -> str:
    """Return what the relay of these settings expects, where that helps."""
    if reason is Reason.ISSUER:
        return f" The setting access.token_issuer requires {json.dumps(access.token_issuer)}."
    if reason is Reason.AUDIENCE:
        return f" The setting access.token_audience requires {json.dumps(access.token_audience)}."
    return ""
