"""The types of the settings: the values that they accept, and the messages about others.

Invariants: `"never"` (in a file or the environment) is `None` and disables a limit; zero and negative numbers never
do. An environment variable holds a list as text.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.hosts import EVERY_HOST, LOOPBACK
from relay.vocabulary.labels import Declaration
from relay.vocabulary.names import is_pattern
from relay.vocabulary.origins import check_allowed_origin

NEVER = "never"
"""The value that disables a limit."""

_HOST_WITH_PORT = re.compile(r"([a-z]+://)?(\[.*\]|[^:/\[\]]+):(?P<port>[0-9]{1,5})/?")

_KEY_CHARACTERS = "A-Za-z0-9._~-"

_UNSEEN = {
    " ": "a space",
    "\t": "a tab",
    "\n": "a line break",
    "\r": "a carriage return",
    "\ufeff": "a byte-order mark",
    '"': "a double quote",
    "'": "a single quote",
}
"""Names of characters that a person may overlook in a key."""


def _never_is_none(value: object, check: ValidatorFunctionWrapHandler) -> object:
    if value is None or value == NEVER:
        return None
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError(f'must be a number of seconds above 0, or "{NEVER}"') from error


def _never_counts(value: object, check: ValidatorFunctionWrapHandler) -> object:
    if value is None or value == NEVER:
        return None
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError(f'must be a whole number above 0, or "{NEVER}"') from error


def _cores_or_count(value: object, check: ValidatorFunctionWrapHandler) -> object:
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError('must be a whole number from 1 to 128, or "auto"') from error


def _none_is_never(value: float | None) -> float | str:
    return NEVER if value is None else value


def _no_count_is_never(value: int | None) -> int | str:
    return NEVER if value is None else value


def _secret(characters: str, least: int, most: int, described: str) -> Callable[[SecretStr], SecretStr]:
    """Return the check of a secret. One line end behind it is left out, because files and shells add it."""

    def check(secret: SecretStr) -> SecretStr:
        text = re.sub(r"\r?\n\Z", "", secret.get_secret_value())
        wrong = re.search(f"[^{characters}]", text)
        if wrong is not None or not least <= len(text) <= most:
            found = "" if wrong is None else f"; {_place(wrong.start(), len(text))} is {_described(wrong[0])}"
            raise ValueError(f"must have {least} to {most} characters, only {described}{found}")
        return SecretStr(text)

    return check


def _place(at: int, length: int) -> str:
    if at in (0, length - 1):
        return "the first one" if at == 0 else "the last one"
    return f"number {at + 1}"


def _described(character: str) -> str:
    """Describe one character, which may be invisible."""
    if character in _UNSEEN:
        return _UNSEEN[character]
    return character if character.isprintable() else f"U+{ord(character):04X}"


def _split_words(value: object) -> object:
    """Split a list from an environment variable: `a, b`, or `[]` for an empty list."""
    if isinstance(value, str):
        return () if value.strip() == "[]" else tuple(value.replace(",", " ").split())
    return tuple(value) if isinstance(value, list) else value


def _pattern(text: str) -> str:
    if not is_pattern(text):
        raise ValueError(
            "must be a list of names with the characters A-Z a-z 0-9 . _ ~ -, in which * matches any characters"
        )
    return text


def _split_lines(value: object) -> object:
    """Split a list from an environment variable: `a; b`, or `[]` for an empty list."""
    if isinstance(value, str):
        return () if value.strip() == "[]" else tuple(part.strip() for part in value.split(";"))
    return tuple(value) if isinstance(value, list) else value


def _declaration(text: str) -> str:
    try:
        Declaration.read(text)
    except BadRequestError as error:
        raise ValueError(
            'must be a list of declarations such as "ev1/de de Deutsch": an address, a BCP 47 tag or -, and a name of '
            "at most 64 characters"
        ) from error
    return text


def _each_channel_once(texts: tuple[str, ...]) -> tuple[str, ...]:
    addresses = [text.split(maxsplit=1)[0] for text in texts]
    for address in addresses:
        if addresses.count(address) > 1:
            raise ValueError(f"must declare each channel only once, but declares {address} several times")
    return texts


def _network(text: str) -> str:
    try:
        if text != LOOPBACK:
            ip_network(text)
    except ValueError as error:
        raise ValueError(
            f'must be a list of addresses such as "10.0.0.1", networks such as "10.0.0.0/8", or "{LOOPBACK}" for this '
            "machine"
        ) from error
    return text


def _one_or_more(value: object) -> object:
    """Return a list of one host, or of several from an environment variable."""
    hosts = _split_words(value)
    if not isinstance(hosts, tuple) or not hosts:
        raise ValueError("must be a host name or an address, or a list of them")
    return hosts


def _one_alone(hosts: tuple[str, ...]) -> str | tuple[str, ...]:
    return hosts[0] if len(hosts) == 1 else hosts


def _host(text: str) -> str:
    with suppress(ValueError):
        ip_address(text)
        return text
    if text == EVERY_HOST or _is_name(text):
        return text
    if (with_port := _HOST_WITH_PORT.fullmatch(text)) is not None:
        raise ValueError(f"must be a host without a port; set server.port (--port) to {with_port['port']}")
    if set(text) & set("/[]"):
        raise ValueError("must be a host name or an address, without a scheme, a path or brackets")
    raise ValueError("must be a host name or an address")


def _is_name(text: str) -> bool:
    try:
        # The system does this before it resolves a name.
        return re.fullmatch(r"[A-Za-z0-9._-]+", text.encode("idna").decode()) is not None
    except UnicodeError:
        return False


def _web_address(text: str) -> str:
    if not _is_address(r"https?://[^/?#@\s]+(/[^?#\s]*)?", text):
        raise ValueError("must be an address such as http://127.0.0.1:5000")
    return text


def _relay_address(text: str) -> str:
    if not _is_address(r"(wss?|https?)://[^/?#@\s]+(/[^?#\s]*)?", text):
        raise ValueError("must be an address such as ws://127.0.0.1:8080 or https://example.org/relay")
    return text


def _cluster_addresses(secret: SecretStr) -> SecretStr:
    parts = [part.strip() for part in secret.get_secret_value().split(",")]
    if not all(_is_address(r"(nats|tls)://([^/?#@\s]+@)?[^/?#@\s]+", part) for part in parts):
        raise ValueError(
            "must be an address such as nats://user:password@127.0.0.1:4222 or tls://nats.example.org:4222, or "
            "several of them, separated by commas"
        )
    return secret


def _is_address(form: str, text: str) -> bool:
    if re.fullmatch(form, text) is None:
        return False
    try:
        parts = urlsplit(text)
        return bool(_host(parts.hostname or "")) and parts.port != 0
    except ValueError:  # a bad port, an unclosed bracket, or a bad host name
        return False


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrNever = Annotated[Seconds | None, WrapValidator(_never_is_none), PlainSerializer(_none_is_never)]
Count = Annotated[int, Field(gt=0)]
CountOrNever = Annotated[Count | None, WrapValidator(_never_counts), PlainSerializer(_no_count_is_never)]
CountOrAuto = Annotated[Annotated[int, Field(ge=1, le=128)] | Literal["auto"], WrapValidator(_cores_or_count)]
Key = Annotated[SecretStr, AfterValidator(_secret(_KEY_CHARACTERS, 8, 256, "A-Z a-z 0-9 . _ ~ -"))]
TokenSecret = Annotated[SecretStr, AfterValidator(_secret("!-~", 32, 512, "printable ASCII without spaces"))]
Token = Annotated[SecretStr, AfterValidator(_secret(_KEY_CHARACTERS, 8, 4096, "A-Z a-z 0-9 . _ ~ -"))]
NamePatterns = Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], BeforeValidator(_split_words)]
Declarations = Annotated[
    tuple[Annotated[str, AfterValidator(_declaration)], ...],
    BeforeValidator(_split_lines),
    AfterValidator(_each_channel_once),
]
Origins = Annotated[tuple[Annotated[str, AfterValidator(check_allowed_origin)], ...], BeforeValidator(_split_words)]
FileNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_split_words)]
Hosts = Annotated[
    tuple[Annotated[str, Field(min_length=1), AfterValidator(_host)], ...],
    BeforeValidator(_one_or_more),
    PlainSerializer(_one_alone),
]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_split_words)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
ClusterAddresses = Annotated[SecretStr, AfterValidator(_cluster_addresses)]
RelayAddress = Annotated[str, AfterValidator(_relay_address)]
