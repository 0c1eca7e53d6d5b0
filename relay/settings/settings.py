"""All settings of an operator, with their defaults, units and reasons.

Invariants: settings are frozen. An unknown key is an error. `"never"` (in a file or the environment) is `None` and
disables a limit; zero and negative numbers never do. Only a secret's own `get_secret_value` reveals it. Sources of
values are in `relay.settings.configuration`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from relay.settings.setting_types import (
    ClusterAddresses,
    Count,
    CountOrAuto,
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
from relay.vocabulary.hosts import LOOPBACK
from relay.vocabulary.origins import SAME_ORIGIN


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(_Section):
    """Where the relay listens, and how it stops."""

    host: Hosts = Field(
        "127.0.0.1",
        validate_default=True,
        description=(
            'The address to listen on, or a list of addresses. "0.0.0.0" means all of IPv4, "::" all of '
            'IPv6, and "*" both, as far as the machine has them. Any address other than loopback needs '
            "broadcast.key or token keys."
        ),
    )
    port: int = Field(8080, ge=0, le=65535, description="The TCP port. 0 chooses a free port and prints it.")
    workers: CountOrAuto = Field(
        1,
        description=(
            'Number of processes that serve the port together, 1 to 128. "auto" is one for each core. More than '
            "one need nats-server or cluster.url."
        ),
    )
    loop: Literal["auto", "asyncio", "uvloop"] = Field(
        "auto",
        description='The event loop. "uvloop" needs the extra "uvloop". "auto" is asyncio, which measured better.',
    )
    trusted_proxies: Networks = Field(
        (LOOPBACK,),
        description=(
            "Addresses and networks of the proxies whose X-Forwarded-For header the relay believes. "
            '"loopback" is this machine. [] ignores the header.'
        ),
    )
    tls_certificate: str | None = Field(
        None,
        min_length=1,
        description="A PEM file with the certificate and its chain. With it, the relay speaks TLS 1.2 or newer.",
        examples=["/etc/relay/certificate.pem"],
    )
    tls_key: str | None = Field(
        None,
        min_length=1,
        description="A PEM file with the certificate's private key, not encrypted.",
        examples=["/etc/relay/key.pem"],
    )
    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = Field(
        0.0,
        description=(
            "After SIGTERM, the relay serves its clients for this long while /readyz says no, so that "
            "load balancers notice. 0 to 600."
        ),
    )
    shutdown_window_seconds: Seconds = Field(
        3.0, description="The relay spreads the goodbyes to its clients over this time. At most half of the timeout."
    )
    shutdown_timeout_seconds: Seconds = Field(
        9.0,
        description=(
            "After SIGTERM and the delay, the relay ends within this time, whatever its clients do. "
            "docker stop allows 10 s."
        ),
    )


class BroadcastSettings(_Section):
    """Broadcasters: their key, their pace, and what happens when one disappears."""

    key: Key | None = Field(
        None,
        description=(
            "A secret that lets its bearer broadcast: 8 to 256 characters of A-Z a-z 0-9 . _ ~ -. Without "
            "it and without tokens, a relay on loopback makes a key at each start."
        ),
    )
    open: bool = Field(
        False,
        description="Let everybody on this machine broadcast without a key. Only for tests, and only on loopback.",
    )
    grace_seconds: Seconds = Field(
        30.0,
        description="A channel that lost its broadcaster stays source_lost for this long. Then it is waiting.",
    )
    ahead_seconds: Annotated[float, Field(ge=0.5, le=60, allow_inf_nan=False)] = Field(
        2.0,
        description=(
            "A broadcaster of pace live may be this far ahead of real time. Beyond it, the relay reads "
            "more slowly. 0.5 to 60."
        ),
    )
    lead_seconds: Annotated[float, Field(ge=0.1, le=10, allow_inf_nan=False)] = Field(
        2.0,
        description=(
            "The relay sends audio of pace speech this long before it is due, and listeners hold it until "
            "then. 0.1 to 10."
        ),
    )
    queue_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = Field(
        60.0,
        description=(
            "Maximum audio of pace speech that waits in the relay. Beyond it, the relay reads more slowly. 1 to 3600."
        ),
    )
    forget_seconds: Seconds = Field(
        60.0,
        description=("The relay remembers a channel that nobody uses for this long, with its name and its numbering."),
    )


class AccessSettings(_Section):
    """Who may broadcast, listen and operate. In patterns, * stands for any characters."""

    sessions: NamePatterns = Field(
        ("*",),
        description="Patterns of the sessions that exist. The relay refuses all others as it refuses a wrong token.",
    )
    open_sessions: NamePatterns = Field(
        ("*",), description="Patterns of the sessions that anybody may listen to. Others need a token. [] means none."
    )
    allowed_origins: Origins = Field(
        (SAME_ORIGIN,),
        description=(
            'The origins of the pages that may connect, such as "https://relay.example.org", "https://*.example.org" '
            '(one label) or "capacitor://localhost" (an app). "same-origin" is the address that the request was sent '
            'to. "*" means any origin.'
        ),
    )
    admin_key: Key | None = Field(
        None,
        description=(
            "A secret that lets its bearer see and end all sessions: 8 to 256 characters of A-Z a-z 0-9 . "
            "_ ~ -. A relay that makes its own broadcast key makes an admin key, too."
        ),
    )
    token_secret: TokenSecret | None = Field(
        None, description='The shared secret of HS256 tokens, with the key id "secret". 32 to 512 characters.'
    )
    token_key_files: FileNames = Field(
        (),
        description=(
            "Files with token keys: JWKS, or PEM of an Ed25519 or RSA key. The id of a PEM key is the "
            "file's name up to its first dot."
        ),
    )
    token_issuer: str = Field(
        "relay", min_length=1, max_length=256, description="The iss claim that a token must have."
    )
    token_audience: str = Field(
        "relay", min_length=1, max_length=256, description="The audience that a token's aud claim must contain."
    )
    token_leeway_seconds: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)] = Field(
        10.0,
        description=(
            "How far the clocks of other machines may be off. Tokens are valid this much earlier and this much longer. "
            "0 to 300."
        ),
    )
    token_in_query: bool = Field(
        False,
        description=(
            "Accept tokens in the query, ?token=, for clients that have no other way. Proxies write "
            "queries into their logs."
        ),
    )


class ListenerSettings(_Section):
    """What the relay keeps for listeners."""

    max_buffer_seconds: Annotated[float, Field(ge=0.5, le=600, allow_inf_nan=False)] = Field(
        10.0,
        description=(
            "The longest bound of a listener that does not keep up. Beyond its bound, the relay drops the "
            "oldest audio. 0.5 to 600."
        ),
    )
    history_seconds: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = Field(
        10.0, description="How much audio each channel keeps for listeners that reconnect. 0 to 600."
    )
    coalesce_ms: int = Field(
        0,
        ge=0,
        le=200,
        description=(
            "How long frames wait so that several are written together. 40 to 60 save most of the CPU. "
            "Listeners may choose. 0 to 200."
        ),
    )
    stall_limit_seconds: SecondsOrNever = Field(
        15.0,
        description=(
            "The relay closes the connection of a listener that takes no audio, or answers no ping, for "
            'this long. "never" keeps it.'
        ),
    )


class OpusSettings(_Section):
    """Opus for listeners of channels whose broadcasters send PCM."""

    enabled: bool = Field(
        True,
        description=(
            "Offer Opus. The relay encodes a channel while somebody wants it: about 1 % of a core for each. Without "
            "libopus, the relay says so at its start, and serves PCM."
        ),
    )
    bitrate: int = Field(
        24_000,
        ge=6_000,
        le=256_000,
        description=(
            "Average bits per second of a mono channel; stereo gets twice as many. Speech is good at 16000 and hardly "
            "gains above 32000. Music wants 64000. 6000 to 256000."
        ),
    )
    complexity: int = Field(
        9,
        ge=0,
        le=10,
        description="How much CPU the encoder may take for the same bit rate. 5 takes about half of 9. 0 to 10.",
    )
    frame_ms: int = Field(
        20,
        ge=20,
        le=60,
        multiple_of=20,
        description=(
            "Length of a packet. Longer ones save a few bytes and add that much delay for everybody. A listener can "
            "have several packets in one message instead, see packet_ms in docs/protocol.md. 20, 40 or 60."
        ),
    )


class StreamSettings(_Section):
    """HTTP streams, for programs that know nothing of the relay: VLC, car radios, hearing-aid apps."""

    enabled: bool = Field(
        True,
        description=(
            "Serve /stream/SESSION.opus, .mp3 and .wav. The relay encodes a channel while somebody wants it. Without "
            "libopus or LAME, the relay says so at its start, and serves the others."
        ),
    )
    mp3_bitrate: int = Field(
        64_000,
        ge=32_000,
        le=192_000,
        multiple_of=32_000,
        description=(
            "Bits per second of MP3, which is 48 kHz in joint stereo. 64000 is good for speech. Music wants 128000 or "
            "more. 32000 to 192000, in steps of 32000."
        ),
    )


class ChannelSettings(_Section):
    """What people see of channels and sessions before somebody broadcasts to them."""

    declared: Declarations = Field(
        (),
        description=(
            'Channels with their names, each SESSION/CHANNEL LANGUAGE NAME, such as "*/de de Deutsch", '
            'and sessions with theirs, each SESSION - NAME, such as "ev1 - Town hall". "*" is every '
            'session; a declaration for one session takes precedence. "-" means no language. In the environment, '
            "separate them by semicolons."
        ),
        examples=["*/de de Deutsch"],
    )


class LimitSettings(_Section):
    """What a client, an address and a session may use. docs/limits.md has the reasons."""

    max_connections: Count = Field(
        10_000, description="Maximum concurrent listeners, and the same number of broadcasters. Beyond it: HTTP 503."
    )
    max_listeners_per_session: CountOrNever = Field(
        10_000, description="Maximum concurrent listeners of one session. Beyond it: HTTP 503."
    )
    max_broadcasters_per_session: CountOrNever = Field(
        64,
        description=("Maximum concurrent broadcasters of one session, and so its live channels. Beyond it: HTTP 503."),
    )
    max_connections_per_address: CountOrNever = Field(
        1_000, description="Maximum concurrent WebSockets of one address. For IPv6, one /64. Beyond it: HTTP 429."
    )
    max_failures_per_minute: CountOrNever = Field(
        30,
        description=("Wrong tokens and bad requests of one address per minute. Beyond it: HTTP 429 for further ones."),
    )
    max_pending_handshakes: Count = Field(
        1_000,
        description=(
            "Maximum connections that are not a WebSocket yet. Beyond it, the relay drops the oldest connection of the "
            "address that has the most."
        ),
    )
    handshake_timeout_seconds: Seconds = Field(
        10.0, description="How long an opening handshake may take, and the TLS handshake before it."
    )
    max_handshake_bytes: Annotated[int, Field(ge=4096, le=1_048_576)] = Field(
        32_768, description="Maximum size of a request with its headers. 4096 to 1048576."
    )
    max_body_bytes: Annotated[int, Field(ge=0)] = Field(
        1_048_576,
        description="Maximum size of a request's body, which the relay reads and throws away. Beyond it: HTTP 413.",
    )
    max_audio_messages_per_second: CountOrNever = Field(
        400,
        description=(
            "Audio messages of one broadcaster. Bursts may hold five seconds' worth. Beyond it, the relay "
            "reads more slowly."
        ),
    )
    max_texts_per_second: CountOrNever = Field(
        50,
        description=("Control messages of one client. Bursts may hold two seconds' worth. Beyond it: close code 1008."),
    )
    max_pings_per_second: CountOrNever = Field(
        50,
        description=(
            "Pings and pongs of the WebSocket layer of one client. Bursts may hold two seconds' worth. "
            "Beyond it: close code 1008."
        ),
    )
    max_fragments_per_second: CountOrNever = Field(
        200,
        description=(
            "Continuation frames of the messages of one client. Bursts may hold two seconds' worth. "
            "Beyond it: close code 1008."
        ),
    )
    max_unread_bytes: Annotated[int, Field(ge=65_536)] = Field(
        262_144,
        description=(
            "Maximum bytes of answers that wait for a client that does not read. Beyond it, the relay "
            "closes the connection. At least 65536."
        ),
    )
    max_requests_per_second_per_address: CountOrNever = Field(
        500, description="Pages and files for one address. Bursts may hold ten seconds' worth. Beyond it: HTTP 429."
    )
    max_requests_per_second: CountOrNever = Field(
        2_000, description="The same limit for all addresses together. Beyond it: HTTP 503."
    )
    max_costly_requests_per_second_per_address: CountOrNever = Field(
        5,
        description=(
            "New QR codes and metrics pages for one address. Bursts may hold two seconds' worth. Beyond it: HTTP 429."
        ),
    )
    max_costly_requests_per_second: CountOrNever = Field(
        10, description="The same limit for all addresses together. Beyond it: HTTP 503."
    )
    max_joins_per_second_per_address: CountOrNever = Field(
        100, description="New WebSockets of one address. Bursts may hold ten seconds' worth. Beyond it: HTTP 429."
    )
    max_joins_per_second: CountOrNever = Field(
        1_000, description="The same limit for all addresses together. Beyond it: HTTP 503."
    )
    max_switches_per_second: CountOrNever = Field(
        5,
        description=(
            "Channel switches of one listener. Bursts may hold two seconds' worth. Beyond it: close code 1008."
        ),
    )
    max_switches_per_second_per_address: CountOrNever = Field(
        100,
        description=("Channel switches of one address. Bursts may hold ten seconds' worth. Beyond it, switches wait."),
    )
    max_control_messages_per_second_per_address: CountOrNever = Field(
        2_000,
        description=(
            "Control messages, pings and fragments of one address. Beyond it, the relay reads all its "
            "clients more slowly."
        ),
    )
    max_abandoned_channels_per_session: CountOrNever = Field(
        256,
        description=(
            "Channels of one session that are kept after their broadcaster left. Beyond it, the relay "
            "forgets the oldest."
        ),
    )
    max_abandoned_channels: CountOrNever = Field(2_000, description="The same limit for all sessions together.")
    max_abandoned_bytes_per_session: CountOrNever = Field(
        134_217_728,
        description=(
            "Bytes of audio that are kept for such channels of one session. Beyond it, the relay drops "
            "the audio of the oldest channel."
        ),
    )
    max_abandoned_bytes: CountOrNever = Field(536_870_912, description="The same limit for all sessions together.")
    max_lag_ms: CountOrNever = Field(
        500, description="How late the relay may be before it refuses new listeners with HTTP 503."
    )


class ClusterSettings(_Section):
    """Several relays that carry the same channels, connected by NATS. docs/nats.md has the details."""

    url: ClusterAddresses | None = Field(
        None,
        description=(
            "The address of a NATS server, or of several, separated by commas. The scheme tls requires encryption. "
            "A user and a password, or a token, may stand before the host. Unset: this relay is on its own. It needs "
            'the extra "cluster".'
        ),
    )
    credentials_file: str | None = Field(
        None,
        min_length=1,
        description="A file with the JWT and the NKey seed of a NATS user, as nsc writes it.",
        examples=["/etc/relay/nats.creds"],
    )
    nkey_seed_file: str | None = Field(
        None,
        min_length=1,
        description="A file with the NKey seed of a NATS user.",
        examples=["/etc/relay/nats.nk"],
    )
    tls_ca_file: str | None = Field(
        None,
        min_length=1,
        description="A PEM file with the authority that signed the NATS servers' certificates. Unset: the system's.",
        examples=["/etc/relay/nats-ca.pem"],
    )
    tls_certificate: str | None = Field(
        None,
        min_length=1,
        description="A PEM file with the certificate that the relay shows to the NATS servers.",
        examples=["/etc/relay/nats-client.pem"],
    )
    tls_key: str | None = Field(
        None,
        min_length=1,
        description="A PEM file with the private key of that certificate, not encrypted.",
        examples=["/etc/relay/nats-client-key.pem"],
    )
    prefix: str = Field(
        "relay",
        pattern=r"^[A-Za-z0-9_-]{1,32}$",
        description=(
            "What the relay's subjects, streams and buckets begin with. Relays with the same prefix are one cluster. "
            "1 to 32 characters of A-Z a-z 0-9 _ -."
        ),
    )
    node: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description=(
            "The name of this relay in the cluster's answers and figures: 1 to 64 characters of A-Z a-z 0-9 _ -. "
            "Unset: the host's name and the process id."
        ),
        examples=["berlin-1"],
    )
    replicas: int = Field(
        1,
        ge=1,
        le=5,
        description=(
            "How many NATS servers keep the cluster's records and recent audio. With 3 of them, the cluster survives "
            "the loss of one. 1 to 5."
        ),
    )
    max_audio_bytes: int = Field(
        536_870_912,
        ge=16_777_216,
        description=(
            "How much audio each NATS server keeps at most. Choose less than the server's max_memory_store, so that "
            "the records have room, too. One session gets at most half of it. Beyond it, NATS forgets the oldest audio."
        ),
    )


class CloudWatchSettings(_Section):
    """Metrics for CloudWatch. Credentials come from the standard AWS chain."""

    enabled: bool = Field(
        False, description="Send metrics to CloudWatch. AWS bills each metric, so this is off by default."
    )
    region: str | None = Field(
        None,
        min_length=1,
        description="The AWS region. Unset: the region of the AWS environment.",
        examples=["eu-central-1"],
    )
    endpoint_url: WebAddress | None = Field(
        None,
        description="Another endpoint, for example a local moto server.",
        examples=["http://127.0.0.1:5000"],
    )
    namespace: str = Field("AudioRelay", min_length=1, max_length=255, description="The CloudWatch namespace.")
    flush_interval_seconds: Seconds = Field(60.0, description="How often collected metrics are sent.")
    utilization_interval_seconds: Seconds = Field(
        10.0, description="How often the relay samples how full the buffers are."
    )
    session_dimension: bool = Field(
        False,
        description=("Also send each metric of the buffers per session (dimension SessionId). AWS bills each session."),
    )


class PrometheusSettings(_Section):
    """Metrics for Prometheus, at /metrics on the relay's own port."""

    enabled: bool = Field(
        False,
        description=(
            "Answer /metrics. The page has numbers and no names, but everybody who reaches the port can read it."
        ),
    )


class LogSettings(_Section):
    """The log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description='The least severe level that is written: "debug", "info", "warning" or "error".'
    )
    format: Literal["auto", "console", "json"] = Field(
        "auto",
        description=('"console" for people, "json" for programs. "auto" is console on a terminal, otherwise JSON.'),
    )


class ClientSettings(_Section):
    """Where relay broadcast, relay listen, relay sessions and relay loadtest connect to."""

    url: RelayAddress = Field("ws://127.0.0.1:8080", description="The address of the relay.")
    token: Token | None = Field(
        None,
        description=(
            "The token that these commands send. Without one, relay broadcast and relay loadtest send broadcast.key "
            "to broadcast, and relay sessions sends access.admin_key."
        ),
    )


class Settings(_Section):
    """All settings. Each section is a table of the TOML file; `RELAY_SECTION_KEY` is a key's environment variable."""

    server: ServerSettings = ServerSettings()
    broadcast: BroadcastSettings = BroadcastSettings()
    access: AccessSettings = AccessSettings()
    listener: ListenerSettings = ListenerSettings()
    opus: OpusSettings = OpusSettings()
    stream: StreamSettings = StreamSettings()
    channel: ChannelSettings = ChannelSettings()
    limits: LimitSettings = LimitSettings()
    cluster: ClusterSettings = ClusterSettings()
    cloudwatch: CloudWatchSettings = CloudWatchSettings()
    prometheus: PrometheusSettings = PrometheusSettings()
    log: LogSettings = LogSettings()
    client: ClientSettings = ClientSettings()
