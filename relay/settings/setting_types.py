"""The types of the settings: the values that they accept, and the messages about others.

Invariants: `"never"` (in a file or the environment) is `None` and disables a limit; zero and negative numbers never
do. An environment variable holds a list as text.
"""

import re
from ipaddress import ip_network
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
from relay.vocabulary.hosts import LOOPBACK
from relay.vocabulary.labels import Declaration
from relay.vocabulary.names import is_pattern
from relay.vocabulary.origins import ANY_ORIGIN, SAME_ORIGIN, read_origin

NEVER = "never"
"""The value that disables a limit."""


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


def _key(secret: SecretStr) -> SecretStr:
    if re.fullmatch(r"[A-Za-z0-9._~-]{8,256}", secret.get_secret_value()) is None:
        raise ValueError("must have 8 to 256 characters, only A-Z a-z 0-9 . _ ~ -")
    return secret


def _token_secret(secret: SecretStr) -> SecretStr:
    if re.fullmatch(r"[!-~]{32,512}", secret.get_secret_value()) is None:
        raise ValueError("must have 32 to 512 characters, only printable ASCII without spaces")
    return secret


def _token(secret: SecretStr) -> SecretStr:
    if re.fullmatch(r"[A-Za-z0-9._~-]{8,4096}", secret.get_secret_value()) is None:
        raise ValueError("must have 8 to 4096 characters, only A-Z a-z 0-9 . _ ~ -")
    return secret


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


def _origin(text: str) -> str:
    if text not in {SAME_ORIGIN, ANY_ORIGIN} and read_origin(text) is None:
        raise ValueError(
            f'must be a list of origins such as "https://relay.example.org", "{SAME_ORIGIN}", or "*" for any origin'
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
    try:
        # The system does this before it resolves a name. An address passes.
        text.encode("idna")
    except UnicodeError as error:
        raise ValueError("must be a host name or an address") from error
    return text


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
Key = Annotated[SecretStr, AfterValidator(_key)]
TokenSecret = Annotated[SecretStr, AfterValidator(_token_secret)]
Token = Annotated[SecretStr, AfterValidator(_token)]
NamePatterns = Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], BeforeValidator(_split_words)]
Declarations = Annotated[
    tuple[Annotated[str, AfterValidator(_declaration)], ...],
    BeforeValidator(_split_lines),
    AfterValidator(_each_channel_once),
]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_split_words)]
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
