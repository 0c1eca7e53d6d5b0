"""What a server that is measured sends, and how that is asked for."""

from enum import StrEnum


class LatencyFrom(StrEnum):
    """What the latency of a frame counts from."""

    BROADCASTER = "broadcaster"
    """When the broadcaster sent it, by the clock of this machine."""

    RELAY = "relay"
    """When it arrived at the relay, by the relay's clock: the broadcaster is somebody else's."""


class Expect(StrEnum):
    """What the messages of a server are, and where the time stands from which a frame's latency counts."""

    RELAY_V1 = "relay.v1"
    """Header and audio, with control messages; from the frame's arrival at the relay, by the relay's clock."""

    RELAY_V1_STAMPED = "relay.v1, stamped"
    """The same, but the audio begins with a header that the sender wrote by the receiver's clock; from there."""

    STAMPED = "stamped"
    """WebSocket messages as the sender made them, each beginning with such a header, of epoch 0; from there."""

    STREAM = "stream"
    """The endless body of an HTTP answer, made of what the sender made for it (`stamp.stamp_for_stream`); from there.
    It may begin anywhere, and what is no frame is passed over."""

    @property
    def is_websocket(self) -> bool:
        """Whether the connection is upgraded to a WebSocket."""
        return self is not Expect.STREAM

    @property
    def is_relay_v1(self) -> bool:
        """Whether there are a greeting, control messages and a close at the end."""
        return self in (Expect.RELAY_V1, Expect.RELAY_V1_STAMPED)

    @property
    def is_stamped(self) -> bool:
        """Whether latencies count from the sender's stamp, by the receiver's own clock."""
        return self is not Expect.RELAY_V1

    @property
    def latency_from(self) -> LatencyFrom:
        """What latencies count from."""
        return LatencyFrom.BROADCASTER if self.is_stamped else LatencyFrom.RELAY
