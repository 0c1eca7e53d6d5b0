"""Everything that an operator can set, with its default, unit and reason.

Invariants: settings are frozen; an unknown key is an error; `"never"` (in a file or the environment) is `None`
and switches a limit off, zero and negatives never do; a secret is shown by nothing but its own
`get_secret_value`. Where values come from is `relay.settings.configuration`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from relay.settings.setting_types import (
    Count,
    CountOrNever,
    Declarations,
    FileNames,
    Hosts,
    Key,
    NamePatterns,
    Networks,
    Origins,
    RelayAddress,
    Seconds,
    SecondsOrNever,
    Token,
    TokenSecret,
    WebAddress,
)
from relay.vocabulary.origins import SAME_ORIGIN
from relay.vocabulary.proxies import LOOPBACK


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(_Section):
    """Where the relay listens, and how it stops."""

    host: Hosts = Field(
        "127.0.0.1",
        validate_default=True,
        description='Address to listen on, or a list of them; "0.0.0.0" is all of IPv4, "::" all of IPv6, "*" both. '
        "Any other than loopback needs broadcast.key, or keys of tokens.",
    )
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0 takes a free one and prints it.")
    loop: Literal["auto", "asyncio", "uvloop"] = Field(
        "auto",
        description='Event loop; uvloop needs the extra "uvloop", auto is the one that measured better: asyncio.',
    )
    trusted_proxies: Networks = Field(
        (LOOPBACK,),
        description='Proxies whose X-Forwarded-For is believed, as addresses and networks; "loopback" is this machine, '
        "[] ignores the header.",
    )
    tls_certificate: str | None = Field(
        None,
        min_length=1,
        description="File with the certificate and its chain, PEM; with it the relay speaks TLS, 1.2 or newer.",
        examples=["/etc/relay/certificate.pem"],
    )
    tls_key: str | None = Field(
        None,
        min_length=1,
        description="File with the certificate's private key, PEM, not encrypted.",
        examples=["/etc/relay/key.pem"],
    )
    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = Field(
        0.0,
        description="After SIGTERM, how long the relay still serves those inside, so that load balancers notice that "
        "it is not ready, 0 to 600.",
    )
    shutdown_window_seconds: Seconds = Field(
        3.0, description="Over how long the clients are told to go, when they are many; half of the time-out at most."
    )
    shutdown_timeout_seconds: Seconds = Field(
        9.0, description="After SIGTERM and the delay, the relay has ended within this, whatever its clients do."
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
    admin_key: Key | None = Field(
        None,
        description="A secret that lets whoever has it see and end all sessions (docs/operations.md). 8 to 256 of "
        "A-Z a-z 0-9 . _ ~ -; a relay that makes its own broadcast key makes one, too.",
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
    """What people see of channels and sessions before anybody broadcasts to them."""

    declared: Declarations = Field(
        (),
        description="Channels with their names, each SESSION/CHANNEL LANGUAGE NAME, and sessions with theirs, each "
        "SESSION - NAME; * is every session, - is no language. In the environment they are separated by semicolons.",
        examples=["*/de de Deutsch"],
    )


class LimitSettings(_Section):
    """What a client, an address and a session may cost; reasons and what a client sees: docs/limits.md."""

    max_connections: Count = Field(
        10_000, description="Maximum concurrent listeners, and the same number of broadcasters. Beyond it: HTTP 503."
    )
    max_listeners_per_session: CountOrNever = Field(
        10_000, description="Maximum concurrent listeners of one session. Beyond it: HTTP 503."
    )
    max_broadcasters_per_session: CountOrNever = Field(
        64, description="Broadcasters of one session at one time, and so its channels that are live."
    )
    max_connections_per_address: CountOrNever = Field(
        1_000, description="Maximum concurrent WebSockets of one address (IPv6: one /64). Beyond it: HTTP 429."
    )
    max_failures_per_minute: CountOrNever = Field(
        30, description="Wrong tokens and bad requests of one address in a minute; after more, HTTP 429."
    )
    max_pending_handshakes: Count = Field(
        1_000,
        description="Maximum connections that are not a WebSocket yet. "
        "Beyond it, the address with the most loses its oldest.",
    )
    handshake_timeout_seconds: Seconds = Field(
        10.0, description="How long an opening handshake may take, and that of TLS before it."
    )
    max_handshake_bytes: Annotated[int, Field(ge=4096, le=1_048_576)] = Field(
        32_768, description="Size of a request with its headers, 4096 to 1048576."
    )
    max_body_bytes: Annotated[int, Field(ge=0)] = Field(
        1_048_576, description="Size of a request's body, which is read and thrown away. Beyond it: HTTP 413."
    )
    max_audio_messages_per_second: CountOrNever = Field(
        400,
        description="Audio messages of one broadcaster; bursts may hold five seconds' worth. "
        "Beyond it, the relay reads more slowly.",
    )
    max_texts_per_second: CountOrNever = Field(
        50,
        description="Control messages of one client; bursts may hold two seconds' worth. Beyond it: close code 1008.",
    )
    max_pings_per_second: CountOrNever = Field(
        50, description="Pings and pongs of one client's WebSocket layer, likewise."
    )
    max_fragments_per_second: CountOrNever = Field(
        200, description="Continuation frames of one client's messages, likewise."
    )
    max_unread_bytes: Annotated[int, Field(ge=65_536)] = Field(
        262_144, description="What may wait for a client that does not read; at more it is cut off. At least 65536."
    )
    max_requests_per_second_per_address: CountOrNever = Field(
        500, description="Pages and files for one address; bursts may hold ten seconds' worth. Beyond it: HTTP 429."
    )
    max_requests_per_second: CountOrNever = Field(
        2_000, description="The same limit for all addresses together. Beyond it: HTTP 503."
    )
    max_costly_requests_per_second_per_address: CountOrNever = Field(
        5,
        description="New QR codes and metrics pages for one address; bursts may hold two seconds' worth. "
        "Beyond it: HTTP 429.",
    )
    max_costly_requests_per_second: CountOrNever = Field(
        10, description="The same limit for all addresses together. Beyond it: HTTP 503."
    )
    max_joins_per_second_per_address: CountOrNever = Field(
        100, description="New WebSockets of one address; bursts may hold ten seconds' worth. Beyond it: HTTP 429."
    )
    max_joins_per_second: CountOrNever = Field(
        1_000, description="The same limit for all addresses together. Beyond it: HTTP 503."
    )
    max_switches_per_second: CountOrNever = Field(
        5,
        description="Channel switches of one listener; bursts may hold two seconds' worth. Beyond it: close code 1008.",
    )
    max_switches_per_second_per_address: CountOrNever = Field(
        100,
        description="Channel switches of one address; bursts may hold ten seconds' worth. Beyond it, switches wait.",
    )
    max_control_messages_per_second_per_address: CountOrNever = Field(
        2_000,
        description="Control messages, pings and fragments of one address. "
        "Beyond it, the relay reads all its clients more slowly.",
    )
    max_abandoned_channels_per_session: CountOrNever = Field(
        256,
        description="Channels of one session kept after their broadcaster left. "
        "Beyond it, the relay forgets the oldest.",
    )
    max_abandoned_channels: CountOrNever = Field(2_000, description="The same limit for all sessions together.")
    max_abandoned_bytes_per_session: CountOrNever = Field(
        134_217_728,
        description="Bytes of audio kept for such channels of one session. "
        "Beyond it, the relay drops the oldest channel's.",
    )
    max_abandoned_bytes: CountOrNever = Field(536_870_912, description="The same limit for all sessions together.")
    max_lag_ms: CountOrNever = Field(
        500, description="How late the relay may be before it refuses new listeners with HTTP 503."
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
    endpoint_url: WebAddress | None = Field(
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


class PrometheusSettings(_Section):
    """Metrics for Prometheus, at /metrics of the relay's own port."""

    enabled: bool = Field(
        False,
        description="Answer /metrics. It has numbers and no names, but whoever reaches the port can read it.",
    )


class LogSettings(_Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level that is written.")
    format: Literal["auto", "console", "json"] = Field(
        "auto", description="console for a person, json for a machine; auto: console on a terminal."
    )


class ClientSettings(_Section):
    """Where `relay broadcast`, `relay listen`, `relay sessions` and `relay loadtest` connect to."""

    url: RelayAddress = Field("ws://127.0.0.1:8080", description="The relay's address.")
    token: Token | None = Field(
        None,
        description="What they show: a token. Without one, `relay broadcast` and the broadcasters of `relay loadtest` "
        "show broadcast.key, and `relay sessions` shows access.admin_key.",
    )


class Settings(_Section):
    """All settings; a section is a table of the TOML file, `RELAY_SECTION_KEY` is its environment variable."""

    server: ServerSettings = ServerSettings()
    broadcast: BroadcastSettings = BroadcastSettings()
    access: AccessSettings = AccessSettings()
    listener: ListenerSettings = ListenerSettings()
    channel: ChannelSettings = ChannelSettings()
    limits: LimitSettings = LimitSettings()
    cloudwatch: CloudWatchSettings = CloudWatchSettings()
    prometheus: PrometheusSettings = PrometheusSettings()
    log: LogSettings = LogSettings()
    client: ClientSettings = ClientSettings()
