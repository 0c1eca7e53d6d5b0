"""A relay's clock, as a process of the load test knows it."""

from relay.vocabulary.clock_offset import ClockOffset


class RelayClock:
    """One relay's clock compared with ours. Several connections share it.

    Attributes:
        offset_ms: The relay's clock minus ours; 0 while unknown. It is stored because every frame needs it.
    """

    __slots__ = ("_offset", "offset_ms")

    def __init__(self) -> None:
        self._offset = ClockOffset()
        self.offset_ms = 0.0

    def note(self, asked_ms: float, now_ms: float, clock_ms: int) -> None:
        """Narrow the offset down: between `asked_ms` and `now_ms` the relay's clock showed `clock_ms`."""
        self._offset.note(asked_ms, now_ms, clock_ms)
        self.offset_ms = self._offset.milliseconds

    @property
    def uncertainty_ms(self) -> float:
        """How far the true offset may be from `offset_ms`, after at least one `note`."""
        return self._offset.uncertainty_ms
