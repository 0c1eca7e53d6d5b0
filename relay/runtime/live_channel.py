"""A channel with the connections that use it.

Invariant: a listener is in exactly one group of one channel, from its joining to its leaving.
"""

from relay.core import messages
from relay.core.channel import Channel, ChannelState
from relay.core.listener_buffer import ListenerBuffer
from relay.runtime.listener import Listener, Note
from relay.vocabulary.errors import CloseCode
from relay.vocabulary.names import ChannelAddress


class Group:
    """The listeners of a channel that are served at the same moments.

    Attributes:
        coalesce_seconds: How long the first frame waits for those that join its write; 0 for not at all.
        buffers: Each listener's buffer.
        is_due: Whether a moment is set already.
    """

    __slots__ = ("buffers", "coalesce_seconds", "is_due")

    def __init__(self, coalesce_seconds: float) -> None:
        """Make an empty group."""
        self.coalesce_seconds = coalesce_seconds
        self.buffers: dict[Listener, ListenerBuffer] = {}
        self.is_due = False


class LiveChannel:
    """A channel with the connections that use it.

    Attributes:
        address: Its session and name.
        channel: Its state and numbering.
        groups: Who receives it, by coalescing interval in milliseconds.
        source: The connection id of who publishes to it; None while nobody does.
    """

    def __init__(self, address: ChannelAddress, channel: Channel) -> None:
        """Make a channel that nobody uses yet."""
        self.address = address
        self.channel = channel
        self.groups: dict[int, Group] = {}
        self.source: str | None = None

    @property
    def listener_count(self) -> int:
        """How many listeners it has."""
        return sum(len(group.buffers) for group in self.groups.values())

    @property
    def idle(self) -> bool:
        """Whether nobody would notice if it were forgotten."""
        return not self.groups and self.channel.state in (ChannelState.WAITING, ChannelState.ENDED)

    def tell(self, note: Note) -> None:
        """Have all listeners told something, each after the frames so far."""
        for group in self.groups.values():
            for listener in group.buffers:
                listener.add_note(note)

    def tell_state(self, close: tuple[CloseCode, str] | None = None) -> None:
        """Have all listeners told the state; with `close`, that is the last they hear."""
        self.tell(Note(self.channel.place, messages.state_message(self.channel.state), close=close))

    def add(self, listener: Listener, coalesce_ms: int) -> None:
        """Take a listener in."""
        group = self.groups.get(coalesce_ms)
        if group is None:
            group = self.groups[coalesce_ms] = Group(coalesce_ms / 1000)
        group.buffers[listener] = listener.buffer

    def remove(self, listener: Listener, coalesce_ms: int) -> None:
        """Let a listener go that was added with the same interval."""
        group = self.groups[coalesce_ms]
        del group.buffers[listener]
        if not group.buffers:
            del self.groups[coalesce_ms]
