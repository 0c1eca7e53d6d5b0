"""What a client requests when it connects: parse and check the path and the query.

Source: docs/protocol.md. Path segments are matched raw, without percent-decoding. Numbers are ASCII digits. A repeated
query name is a bad request. Unknown names are ignored.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import unquote_plus

from relay.vocabulary.audio import AudioFormat, Codec, Pace
from relay.vocabulary.containers import Container
from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.labels import Label, tidy_name
from relay.vocabulary.names import DEFAULT_CHANNEL, ChannelAddress
from relay.vocabulary.text import quoted

_STREAM = "/stream/"
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


class Role(StrEnum):
    """The role of a WebSocket client."""

    BROADCASTER = "broadcast"
    LISTENER = "listen"


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a listener wants its audio delivered. The relay clamps values to its own range.

    Attributes:
        buffer_ms: Maximum age of the audio that the relay sends. None means the relay's default.
        coalesce_ms: Interval over which frames are joined into one write. None means the relay's default.
        packet_ms: How much audio frames may have that share one message. 0 if each has its own.
        burst_ms: How much audio from before the join to send first.
        resume: The frame to resume after. None for a new listener.
        codecs: The codecs that the client plays, best first. None for a client that names none: it plays PCM.
        container: What a client gets over HTTP. None for a WebSocket.
    """

    buffer_ms: int | None = None
    coalesce_ms: int | None = None
    packet_ms: int = 0
    burst_ms: int = 0
    resume: "Resume | None" = None
    codecs: tuple[Codec, ...] | None = None
    container: Container | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """The last frame that a listener received on an earlier connection, as numbered on the wire, and its codec."""

    epoch: int
    after: int
    codec: Codec = Codec.PCM_S16LE


@dataclass(frozen=True, slots=True)
class Offer:
    """What a broadcaster states when it connects.

    Attributes:
        audio_format: The format of its audio.
        pace: Whether the audio arrives from a live source or from speech synthesis.
        takeover: Whether it replaces the current broadcaster.
        label: The channel's name and language.
        resume: The id of its previous connection, to learn how much audio arrived. None if there was none.
        session_name: The session's display name. None leaves it unchanged.
    """

    audio_format: AudioFormat = field(default_factory=AudioFormat)
    pace: Pace = Pace.LIVE
    takeover: bool = False
    label: Label = field(default_factory=Label)
    resume: str | None = None
    session_name: str | None = None


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """A checked request for a WebSocket, or for an HTTP stream.

    Attributes:
        role: Broadcaster or listener.
        address: The channel.
        offer: What a broadcaster offers. The default for a listener.
        delivery: What a listener asks for. The default for a broadcaster.
    """

    role: Role
    address: ChannelAddress
    offer: Offer = Offer()
    delivery: Delivery = Delivery()


def split_target(target: str) -> tuple[str, str]:
    """Split a request target into path and query. Either may be empty."""
    path, _, query = target.partition("?")
    return path, query


def websocket_role(path: str) -> Role | None:
    """Return the role that a path is for. None if it is not a WebSocket path."""
    for role in Role:
        if path.startswith(f"/v1/{role}/"):
            return role
    return None


def read_connect_request(role: Role, path: str, query: str) -> ConnectRequest:
    """Parse the path and query of a path for which `websocket_role` returned `role`.

    Raises:
        BadRequestError: The text says which part is wrong and what is expected.
    """
    segments = path.removeprefix(f"/v1/{role}/").split("/")
    if len(segments) > 2:  # noqa: PLR2004 - session and channel
        raise BadRequestError(f"The address must be /v1/{role}/SESSION or /v1/{role}/SESSION/CHANNEL.")
    address = ChannelAddress(segments[0], segments[1] if len(segments) > 1 else DEFAULT_CHANNEL)
    values = _read_query(query)
    if role is Role.LISTENER:
        return ConnectRequest(role, address, delivery=_read_delivery(values))
    return ConnectRequest(role, address, _read_offer(values))


def is_stream_path(path: str) -> bool:
    """Return whether a path is that of an HTTP stream."""
    return path.startswith(_STREAM)


def read_stream_request(path: str, query: str) -> ConnectRequest:
    """Parse the path and query of a path for which `is_stream_path` returned True.

    Raises:
        BadRequestError: The text says which part is wrong and what is expected.
    """
    container = next((each for each in Container if path.endswith(each.ending)), None)
    segments = path.removeprefix(_STREAM).split("/")
    if container is None or len(segments) > 2:  # noqa: PLR2004 - session and channel
        endings = " or ".join(f"CHANNEL{each.ending}" for each in Container)
        raise BadRequestError(f"The address of an HTTP stream is /stream/SESSION/ and {endings}.")
    segments[-1] = segments[-1].removesuffix(container.ending)
    address = ChannelAddress(segments[0], segments[1] if len(segments) > 1 else DEFAULT_CHANNEL)
    burst_ms = _read_number(_read_query(query), "burst_ms") or 0
    return ConnectRequest(Role.LISTENER, address, delivery=Delivery(burst_ms=burst_ms, container=container))


def _read_query(query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        name = unquote_plus(name)
        if name in values:
            raise BadRequestError(f"The query has {quoted(name)} more than once; give it once.")
        values[name] = unquote_plus(value)
    return values


def _read_delivery(values: dict[str, str]) -> Delivery:
    return Delivery(
        buffer_ms=_read_number(values, "buffer_ms"),
        coalesce_ms=_read_number(values, "coalesce_ms"),
        packet_ms=_read_number(values, "packet_ms") or 0,
        burst_ms=_read_number(values, "burst_ms") or 0,
        resume=_read_resume(values),
        codecs=read_codecs(values["codec"]) if "codec" in values else None,
    )


def read_codecs(text: str) -> tuple[Codec, ...]:
    """Read a list of codecs that a client plays, separated by commas. Unknown ones are left out.

    Raises:
        BadRequestError: None of them is known.
    """
    known = tuple(Codec(name) for name in text.split(",") if name in set(Codec))
    if not known:
        raise BadRequestError(f"codec must name one of {_names_of_codecs()}, not {quoted(text)}.")
    return known


def _read_resume(values: dict[str, str]) -> Resume | None:
    epoch, after = _read_number(values, "epoch"), _read_number(values, "after")
    if after is None:
        return None
    if epoch is None:
        raise BadRequestError("after needs epoch, because numbers start again in each epoch.")
    codec = values.get("after_codec", Codec.PCM_S16LE.value)
    if codec not in set(Codec):
        raise BadRequestError(f"after_codec must be one of {_names_of_codecs()}, not {quoted(codec)}.")
    return Resume(epoch, after, Codec(codec))


def _read_offer(values: dict[str, str]) -> Offer:
    pace = values.get("pace", Pace.LIVE.value)
    if pace not in set(Pace):
        raise BadRequestError(f"pace must be live or speech, not {quoted(pace)}.")
    takeover = values.get("takeover", "0")
    if takeover not in ("0", "1"):
        raise BadRequestError(f"takeover must be 0 or 1, not {quoted(takeover)}.")
    label = Label(values.get("name"), values.get("lang"))
    said = values.get("session_name")
    session_name = None if said is None else tidy_name("session_name", said)
    return Offer(_read_format(values), Pace(pace), takeover == "1", label, values.get("resume"), session_name)


def _read_format(values: dict[str, str]) -> AudioFormat:
    codec = values.get("codec", Codec.PCM_S16LE.value)
    if codec not in set(Codec):
        raise BadRequestError(f"codec must be one of {_names_of_codecs()}, not {quoted(codec)}.")
    try:
        rate, channels = _read_number(values, "rate"), _read_number(values, "channels")
        return AudioFormat(
            Codec(codec),
            Codec(codec).default_rate if rate is None else rate,
            AudioFormat().channels if channels is None else channels,
        )
    except ValueError as error:
        raise BadRequestError(f"{error}.") from error


def _read_number(values: dict[str, str], name: str) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    if _NUMBER.fullmatch(text) is None:
        raise BadRequestError(f"{name} must be a whole number of at most 10 ASCII digits, not {quoted(text)}.")
    return int(text)


def _names_of_codecs() -> str:
    return ", ".join(Codec)
