"""All channels: created on first use, and forgotten after a while without users."""

from collections.abc import Callable, Iterable, Iterator

from relay.hub.channel import Channel
from relay.metrics.vitals import Tally
from relay.protocol.messages import ChannelEntry, ChannelList
from relay.vocabulary.labels import ANY_SESSION, Declaration, Label
from relay.vocabulary.names import DEFAULT_CHANNEL, ChannelAddress

MAX_LISTED = 64
"""The most channels in one session's list; the first ones are shown. A message with that list has up to 16 KiB."""

_NO_LABEL = Label()


class Directory:
    """The channels of all sessions.

    Args:
        make: Creates a channel from its address, its label, and whether the list shows it.
        declared: The operator's labels.

    Attributes:
        forgotten: Counts of the frames of removed channels. Their remaining listeners still add to it.
    """

    def __init__(self, make: Callable[[ChannelAddress, Label, bool], Channel], declared: Iterable[Declaration]) -> None:
        self.forgotten = Tally()
        self._changed: set[str] = set()
        self._lists: dict[str, ChannelList] = {}
        self._names: dict[str, str] = {}
        self._abandoned: dict[Channel, None] = {}
        self._make = make
        self._declared = {(each.session, each.channel): each.label for each in declared}
        self._ended: dict[ChannelAddress, Channel] = {}
        self._sessions: dict[str, dict[str, Channel]] = {}

    def __iter__(self) -> Iterator[Channel]:
        """Iterate over all channels. The caller may forget channels meanwhile."""
        return iter([channel for channels in self._sessions.values() for channel in channels.values()])

    @property
    def sessions(self) -> Iterator[str]:
        """The names of the sessions that have channels."""
        return iter(self._sessions)

    def find(self, address: ChannelAddress) -> Channel | None:
        """Return a channel in use, or None."""
        return self._sessions.get(address.session, {}).get(address.channel)

    def open(self, address: ChannelAddress) -> Channel:
        """Return a channel, and create it if it is not in use."""
        channels = self._sessions.setdefault(address.session, {})
        channel = channels.get(address.channel)
        if channel is None:
            label = self.declared(address)
            channel = channels[address.channel] = self._make(address, label, label is not _NO_LABEL)
        return channel

    def forget(self, channel: Channel) -> None:
        """Remove a channel. A later channel with the same address is a new one."""
        self._take_out(channel)
        channel.dismiss_readers()
        channel.streams.stop()

    def _take_out(self, channel: Channel) -> None:
        channels = self._sessions[channel.address.session]
        del channels[channel.address.channel]
        if not channels:
            del self._sessions[channel.address.session]
            self._lists.pop(channel.address.session, None)
            self._names.pop(channel.address.session, None)
        self._abandoned.pop(channel, None)
        channel.count_in(self.forgotten)
        if channel.had_broadcaster:
            self.note_change(channel.address.session)

    def retire(self, channel: Channel) -> None:
        """Remove a channel that ended. Listeners that reconnect can still find it."""
        self._take_out(channel)
        self._keep_ended(channel)

    def open_ended(self, address: ChannelAddress) -> Channel:
        """Create a channel that ended elsewhere. Listeners that reconnect can find it, and one in use stays."""
        channel = self._make(address, self.declared(address), False)
        channel.count_in(self.forgotten)
        self._keep_ended(channel)
        return channel

    def _keep_ended(self, channel: Channel) -> None:
        self._abandoned.pop(self._ended.get(channel.address, channel), None)
        self._ended[channel.address] = channel
        self.abandon(channel)

    def abandon(self, channel: Channel) -> None:
        """Record that a channel, ended or not, lost its broadcaster."""
        self._abandoned.pop(channel, None)
        self._abandoned[channel] = None

    def adopt(self, channel: Channel) -> None:
        """Record that a channel has a broadcaster."""
        self._abandoned.pop(channel, None)

    def abandoned(self, session: str | None = None) -> list[Channel]:
        """Return the channels without a broadcaster of a session, or of all sessions, oldest departure first."""
        return [channel for channel in self._abandoned if session in (None, channel.address.session)]

    def give_up(self, channel: Channel) -> None:
        """Forget a channel without a broadcaster, unless it has subscribers."""
        if self._ended.get(channel.address) is channel:
            del self._ended[channel.address]
            self._abandoned.pop(channel, None)
        elif not channel.has_subscribers and self.find(channel.address) is channel:
            self.forget(channel)
        else:
            self._abandoned.pop(channel, None)

    def ended(self, address: ChannelAddress) -> Channel | None:
        """Return the latest channel of this address that ended, while it is kept."""
        return self._ended.get(address)

    @property
    def ending(self) -> list[Channel]:
        """The channels that ended, and whose listeners still receive the last audio."""
        return [channel for channel in self._ended.values() if channel.listener_count]

    def forget_ended(self, before: float) -> None:
        """Forget channels that ended before a time in seconds of the relay's clock."""
        for address, channel in list(self._ended.items()):
            if channel.idle_since is not None and channel.idle_since < before:
                del self._ended[address]
                self._abandoned.pop(channel, None)

    def declared(self, address: ChannelAddress) -> Label:
        """Return the operator's label for a channel. A label for the session precedes one for all sessions."""
        for session in (address.session, ANY_SESSION):
            label = self._declared.get((session, address.channel))
            if label is not None:
                return label
        return _NO_LABEL

    def knows(self, address: ChannelAddress) -> bool:
        """Whether a listener can switch to this channel: it is in use or declared."""
        return self.find(address) is not None or self.declared(address) is not _NO_LABEL

    def session_name(self, session: str) -> str | None:
        """Return the name of a session: the operator's, or a broadcaster's latest, or None."""
        for of in (session, ANY_SESSION):
            label = self._declared.get((of, None))
            if label is not None:
                return label.name
        return self._names.get(session)

    def title(self, address: ChannelAddress) -> str:
        """Return the name of a channel and its session, for a player's display. Ids stand in for missing names."""
        session = self.session_name(address.session) or address.session
        channel = self.find(address)
        label = self.declared(address) if channel is None else channel.label
        name = label.name or (None if address.channel == DEFAULT_CHANNEL else address.channel)
        return session if name is None else f"{session} – {name}"

    def name_session(self, session: str, name: str | None) -> None:
        """Set a broadcaster's name for a session in use. None changes nothing."""
        if name is not None and name != self._names.get(session):
            self._names[session] = name
            self.note_change(session)

    def channels_of(self, session: str) -> Iterator[Channel]:
        """Iterate over the channels of a session that are in use."""
        return iter(list(self._sessions.get(session, {}).values()))

    def note_change(self, session: str) -> None:
        """Record that the list of a session changed."""
        self._lists.pop(session, None)
        self._changed.add(session)

    def take_changes(self) -> set[str]:
        """Return the sessions whose list changed since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def listed(self, session: str) -> ChannelList:
        """Return the list that people choose from: declared channels first, then those that had a broadcaster.

        For a session with channels, the list and its text are cached until the next change.
        """
        listed = self._lists.get(session)
        if listed is None:
            listed = self._list(session)
            if session in self._sessions:
                self._lists[session] = listed
        return listed

    def _list(self, session: str) -> ChannelList:
        entries = {
            channel: ChannelEntry(channel, label.name or "", label.lang)
            for channel in dict.fromkeys(channel for of, channel in self._declared if of in (session, ANY_SESSION))
            if channel is not None
            for label in [self.declared(ChannelAddress(session, channel))]
        }
        for channel in self.channels_of(session):
            if channel.is_listed:
                entries[channel.address.channel] = channel.entry
        return ChannelList(list(entries.values())[:MAX_LISTED])
