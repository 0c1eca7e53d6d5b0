"""Everything that an operator can set, with its default, unit and reason.

Invariants: settings are frozen; an unknown key is an error; `"never"` (in a file or the environment) is `None`
and switches a limit off, zero and negatives never do; a secret is shown by nothing but its own
`get_secret_value`. Where values come from is `relay.adapters.configuration`.
"""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.labels import Declaration
from relay.vocabulary.names import is_pattern
from relay.vocabulary.origins import ANY_ORIGIN, SAME_ORIGIN, read_origin

NEVER = "never"
"""How a limit that is switched off is written."""


def _never_is_none(value: object, check: ValidatorFunctionWrapHandler) -> object:
    if value is None or value == NEVER:
        return None
    try:
        return check(value)
    except ValidationError as error:
        raise ValueError(f'must be a number of seconds above 0, or "{NEVER}"') from error


def _none_is_never(value: float | None) -> float | str:
    return NEVER if value is None else value


def _key(secret: SecretStr) -> SecretStr:
    if re.fullmatch(r"[A-Za-z0-9._~-]{8,256}", secret.get_secret_value()) is None:
        raise ValueError("must be 8 to 256 of the characters A-Z a-z 0-9 . _ ~ -")
    return secret


def _token_secret(secret: SecretStr) -> SecretStr:
    if re.fullmatch(r"[!-~]{32,512}", secret.get_secret_value()) is None:
        raise ValueError("must be 32 to 512 printable ASCII characters without spaces")
    return secret


def _token(secret: SecretStr) -> SecretStr:
    if re.fullmatch(r"[A-Za-z0-9._~-]{8,4096}", secret.get_secret_value()) is None:
        raise ValueError("must be 8 to 4096 of the characters A-Z a-z 0-9 . _ ~ -")
    return secret


def _split_words(value: object) -> object:
    """Take a list apart that an environment variable has as text: `a, b`, or `[]` for an empty one."""
    if isinstance(value, str):
        return () if value.strip() == "[]" else tuple(value.replace(",", " ").split())
    return tuple(value) if isinstance(value, list) else value


def _pattern(text: str) -> str:
    if not is_pattern(text):
        raise ValueError("must be names of A-Z a-z 0-9 . _ ~ - in which * stands for any characters")
    return text


def _origin(text: str) -> str:
    if text not in {SAME_ORIGIN, ANY_ORIGIN} and read_origin(text) is None:
        raise ValueError(f'must be origins such as https://relay.example.org, or "{SAME_ORIGIN}", or "*" for any')
    return text


def _split_lines(value: object) -> object:
    """Take a list apart that an environment variable has as text: `a; b`, or `[]` for an empty one."""
    if isinstance(value, str):
        return () if value.strip() == "[]" else tuple(part.strip() for part in value.split(";"))
    return tuple(value) if isinstance(value, list) else value


def _declaration(text: str) -> str:
    try:
        Declaration.read(text)
    except BadRequestError as error:
        raise ValueError(
            'must be texts such as "ev1/de de Deutsch": an address, a BCP 47 tag or -, a name of 64 characters at most'
        ) from error
    return text


def _web_address(text: str) -> str:
    if not _is_address(r"https?://[^/?#@\s]+(/[^?#\s]*)?", text):
        raise ValueError("must be an address such as http://127.0.0.1:5000")
    return text


def _relay_address(text: str) -> str:
    if not _is_address(r"(wss?|https?)://[^/?#@\s]+/?", text):
        raise ValueError("must be an address without a path, such as ws://127.0.0.1:8080")
    return text


def _is_address(form: str, text: str) -> bool:
    if re.fullmatch(form, text) is None:
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number up to 65535, or a bracket that is not closed
        return False


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrNever = Annotated[Seconds | None, WrapValidator(_never_is_none), PlainSerializer(_none_is_never)]
Key = Annotated[SecretStr, AfterValidator(_key)]
TokenSecret = Annotated[SecretStr, AfterValidator(_token_secret)]
Token = Annotated[SecretStr, AfterValidator(_token)]
NamePatterns = Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], BeforeValidator(_split_words)]
Declarations = Annotated[tuple[Annotated[str, AfterValidator(_declaration)], ...], BeforeValidator(_split_lines)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_split_words)]
FileNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_split_words)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(_Section):
    """Where the relay listens, and how it stops."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on. Any other than loopback needs broadcast.key.",
    )
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0 takes a free one and prints it.")
    loop: Literal["auto", "asyncio", "uvloop"] = Field(
        "auto",
        description='Event loop; uvloop needs the extra "uvloop", auto is the one that measured better: asyncio.',
    )
    shutdown_timeout_seconds: Seconds = Field(
        10.0, description="After SIGTERM, how long closing may take before what is left is cut off."
    )


class BroadcastSettings(_Section):
    """Who may broadcast, and what happens when the broadcaster goes."""

    key: Key | None = Field(
        None,
        description="A secret that lets whoever has it broadcast. 8 to 256 of A-Z a-z 0-9 . _ ~ -; "
        "unset and without tokens, a relay on loopback makes one at each start.",
    )
    open: bool = Field(
        False,
        description="Let everybody on this machine broadcast without a key; only for tests, and only on loopback.",
    )
    grace_seconds: Seconds = Field(
        30.0,
        description="How long a channel whose broadcaster vanished is source_lost before it is waiting again.",
    )
    ahead_seconds: Annotated[float, Field(ge=0.5, le=60, allow_inf_nan=False)] = Field(
        2.0, description="How far ahead of real time a broadcaster of pace live may send before it is held back."
    )
    lead_seconds: Annotated[float, Field(ge=0.1, le=10, allow_inf_nan=False)] = Field(
        2.0, description="How long before it is due audio of pace speech is sent to listeners, who hold it until then."
    )
    queue_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = Field(
        60.0, description="Audio of pace speech that waits in the relay before its broadcaster is held back."
    )
    forget_seconds: Seconds = Field(
        60.0, description="How long a channel that nobody uses is remembered, with its name and its numbering."
    )


class AccessSettings(_Section):
    """Who may do what; tokens are JSON Web Tokens, made by `relay token`. In patterns * is any characters."""

    sessions: NamePatterns = Field(
        ("*",), description="Patterns of the sessions that exist; any other is refused like a wrong token."
    )
    open_sessions: NamePatterns = Field(
        ("*",), description="Patterns of the sessions that anybody may listen to; others need a token. [] is none."
    )
    allowed_origins: Origins = Field(
        (SAME_ORIGIN,),
        description='Whose pages may connect: origins such as "https://relay.example.org"; "same-origin" is the '
        'address that the request was sent to, "*" is any.',
    )
    token_secret: TokenSecret | None = Field(
        None, description='Shared secret of tokens by HS256, with the key id "secret"; 32 to 512 characters.'
    )
    token_key_files: FileNames = Field(
        (),
        description="Files with keys of tokens: JWKS, or PEM of an Ed25519 or RSA key, whose id is the file's name "
        "up to its first dot.",
    )
    token_issuer: str = Field("relay", min_length=1, max_length=256, description="What a token's iss must be.")
    token_audience: str = Field("relay", min_length=1, max_length=256, description="What a token's aud must contain.")
    token_leeway_seconds: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)] = Field(
        10.0,
        description="How far other machines' clocks may be off: tokens hold this much earlier and longer, 0 to 300.",
    )
    token_in_query: bool = Field(
        False,
        description="Take tokens from ?token= too, which proxies write down; for clients that have no other way.",
    )


class ListenerSettings(_Section):
    """What one listener may cost."""

    max_buffer_seconds: Annotated[float, Field(ge=0.5, le=600, allow_inf_nan=False)] = Field(
        10.0, description="Audio kept for a listener that does not keep up; beyond it the oldest is dropped."
    )
    history_seconds: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = Field(
        10.0, description="Audio kept in each channel for listeners that reconnect; 0 keeps none."
    )
    coalesce_ms: int = Field(
        0,
        ge=0,
        le=200,
        description="How long frames wait to be written together; 40 to 60 save most of the CPU. Listeners may choose.",
    )
    stall_limit_seconds: SecondsOrNever = Field(
        15.0,
        description="A listener that cannot be written to, or answers no ping, for this long is cut off; "
        '"never" keeps it.',
    )


class ChannelSettings(_Section):
    """What people see of channels before anybody broadcasts to them."""

    declared: Declarations = Field(
        (),
        description="Channels with their names, each SESSION/CHANNEL LANGUAGE NAME; * is every session, - is no "
        "language. In the environment they are separated by semicolons.",
        examples=["*/de de Deutsch"],
    )


class CloudWatchSettings(_Section):
    """Metrics to CloudWatch; credentials come from the standard AWS chain."""

    enabled: bool = Field(
        False, description="Send metrics. CloudWatch bills each metric, so it is off until asked for."
    )
    region: str | None = Field(
        None,
        min_length=1,
        description="AWS region; unset: what the AWS environment says.",
        examples=["eu-central-1"],
    )
    endpoint_url: Annotated[str, AfterValidator(_web_address)] | None = Field(
        None,
        description="Another endpoint, for example a local moto server.",
        examples=["http://127.0.0.1:5000"],
    )
    namespace: str = Field("AudioRelay", min_length=1, max_length=255, description="CloudWatch namespace.")
    flush_interval_seconds: Seconds = Field(60.0, description="How often collected metrics are sent.")
    utilization_interval_seconds: Seconds = Field(10.0, description="How often buffer utilization is sampled.")
    session_dimension: bool = Field(
        False, description="Also send each metric per session (SessionId); each session is then billed."
    )


class LogSettings(_Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level that is written.")
    format: Literal["auto", "console", "json"] = Field(
        "auto", description="console for a person, json for a machine; auto: console on a terminal."
    )


class ClientSettings(_Section):
    """Where `relay broadcast` and `relay listen` connect to."""

    url: Annotated[str, AfterValidator(_relay_address)] = Field(
        "ws://127.0.0.1:8080", description="The relay's address."
    )
    token: Token | None = Field(
        None, description="What they show: a token. Without one, `relay broadcast` shows broadcast.key."
    )


class Settings(_Section):
    """All settings; a section is a table of the TOML file, `RELAY_SECTION_KEY` is its environment variable."""

    server: ServerSettings = ServerSettings()
    broadcast: BroadcastSettings = BroadcastSettings()
    access: AccessSettings = AccessSettings()
    listener: ListenerSettings = ListenerSettings()
    channel: ChannelSettings = ChannelSettings()
    cloudwatch: CloudWatchSettings = CloudWatchSettings()
    log: LogSettings = LogSettings()
    client: ClientSettings = ClientSettings()
