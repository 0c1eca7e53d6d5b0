"""Which channels there are: made when somebody first uses them, forgotten when nobody has for a while."""

from collections.abc import Callable, Iterable, Iterator

from relay.hub.channel import Channel
from relay.metrics.vitals import Tally
from relay.protocol.messages import ChannelEntry, ChannelList
from relay.vocabulary.labels import ANY_SESSION, Declaration, Label
from relay.vocabulary.names import ChannelAddress

MAX_LISTED = 64
"""Channels in one session's list; of more, those that came first are shown. A message of the list is then 16 KiB."""

_NO_LABEL = Label()


class Directory:
    """The channels of all sessions.

    Attributes:
        forgotten: What became of the frames of channels that were taken out, and still becomes of them.
    """

    def __init__(self, make: Callable[[ChannelAddress, Label, bool], Channel], declared: Iterable[Declaration]) -> None:
        """Make an empty directory.

        Args:
            make: Makes a channel, from its address, its label, and whether it is shown in the list.
            declared: What the operator calls channels.
        """
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
        """Give all channels; the caller may forget some meanwhile."""
        return iter([channel for channels in self._sessions.values() for channel in channels.values()])

    @property
    def sessions(self) -> Iterator[str]:
        """Names of the sessions that have channels."""
        return iter(self._sessions)

    def find(self, address: ChannelAddress) -> Channel | None:
        """Give a channel that is in use."""
        return self._sessions.get(address.session, {}).get(address.channel)

    def open(self, address: ChannelAddress) -> Channel:
        """Give a channel, made anew when nobody uses it yet."""
        channels = self._sessions.setdefault(address.session, {})
        channel = channels.get(address.channel)
        if channel is None:
            label = self.declared(address)
            channel = channels[address.channel] = self._make(address, label, label is not _NO_LABEL)
        return channel

    def forget(self, channel: Channel) -> None:
        """Take a channel out; a later one of the same address is another."""
        self._take_out(channel)
        channel.close_taps()

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
        """Take a channel out that ended; who was away meanwhile still finds it."""
        self._take_out(channel)
        self._abandoned.pop(self._ended.get(channel.address, channel), None)
        self._ended[channel.address] = channel
        self.abandon(channel)

    def abandon(self, channel: Channel) -> None:
        """Note that a channel, ended or not, has no broadcaster any more."""
        self._abandoned.pop(channel, None)
        self._abandoned[channel] = None

    def adopt(self, channel: Channel) -> None:
        """Note that a channel has a broadcaster."""
        self._abandoned.pop(channel, None)

    def abandoned(self, session: str | None = None) -> list[Channel]:
        """Give the channels of a session, or of all, that are kept without a broadcaster; the oldest such one first."""
        return [channel for channel in self._abandoned if session in (None, channel.address.session)]

    def give_up(self, channel: Channel) -> None:
        """Forget a channel that is kept without a broadcaster, unless somebody wants its audio."""
        if self._ended.get(channel.address) is channel:
            del self._ended[channel.address]
            self._abandoned.pop(channel, None)
        elif not channel.has_subscribers and self.find(channel.address) is channel:
            self.forget(channel)
        else:
            self._abandoned.pop(channel, None)

    def ended(self, address: ChannelAddress) -> Channel | None:
        """Give the channel of this address that ended last, as long as it is kept."""
        return self._ended.get(address)

    def forget_ended(self, before: float) -> None:
        """Forget channels that ended before a time, in seconds of the relay's clock."""
        for address, channel in list(self._ended.items()):
            if channel.idle_since is not None and channel.idle_since < before:
                del self._ended[address]
                self._abandoned.pop(channel, None)

    def declared(self, address: ChannelAddress) -> Label:
        """Give what the operator calls a channel: what is declared for its session goes before what is for all."""
        for session in (address.session, ANY_SESSION):
            label = self._declared.get((session, address.channel))
            if label is not None:
                return label
        return _NO_LABEL

    def knows(self, address: ChannelAddress) -> bool:
        """Tell whether there is such a channel to switch to: in use, or declared."""
        return self.find(address) is not None or self.declared(address) is not _NO_LABEL

    def session_name(self, session: str) -> str | None:
        """Give what people call a session: what the operator declared, else what a broadcaster said last, else None."""
        for of in (session, ANY_SESSION):
            label = self._declared.get((of, None))
            if label is not None:
                return label.name
        return self._names.get(session)

    def name_session(self, session: str, name: str | None) -> None:
        """Take what a broadcaster of a session that is in use calls it; None changes nothing."""
        if name is not None and name != self._names.get(session):
            self._names[session] = name
            self.note_change(session)

    def channels_of(self, session: str) -> Iterator[Channel]:
        """Give the channels of a session that are in use."""
        return iter(list(self._sessions.get(session, {}).values()))

    def note_change(self, session: str) -> None:
        """Note that the list of a session is not any more what it was."""
        self._lists.pop(session, None)
        self._changed.add(session)

    def take_changes(self) -> set[str]:
        """Give the sessions whose list changed since the last time."""
        changed, self._changed = self._changed, set()
        return changed

    def listed(self, session: str) -> ChannelList:
        """Give the list that people choose from: declared channels first, then those that had a broadcaster.

        That of a session that has channels is made once for each change, and so is its text.
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
