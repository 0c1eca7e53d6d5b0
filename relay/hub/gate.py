"""The gate: what has to happen before a broadcaster claims a channel or a listener joins one.

In a single process nothing has to: the channel is here. In a cluster, the channel may have its home elsewhere.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from relay.protocol.requests import Delivery, Offer
from relay.vocabulary.errors import RelayError
from relay.vocabulary.names import ChannelAddress

Then = Callable[[RelayError | None], None]
"""Called when a channel is ready, or with the reason why it can't be used."""


class Gate(Protocol):
    """Makes channels ready to be used.

    Attributes:
        is_shared: Whether other processes serve the same channels, so that clients can go there at once.
    """

    is_shared: bool

    def before_claim(self, address: ChannelAddress, offer: Offer, connection_id: str, then: Then) -> bool:
        """Make this process the home of a channel that a connection is about to claim.

        Returns:
            Whether it is that already. If not, `then` is called later.
        """
        ...

    def before_join(self, address: ChannelAddress, delivery: Delivery, then: Then) -> bool:
        """Bring what the cluster knows of a channel here, for a connection that is about to listen.

        Returns:
            Whether it is here already. If not, `then` is called later, without a reason.
        """
        ...

    async def leave(self) -> None:
        """Leave the channels to other processes, after all broadcasters were asked to go there."""
        ...


class OpenGate:
    """The gate of a single process: every channel is here."""

    is_shared = False

    def before_claim(self, *_: object) -> bool:
        """Do nothing."""
        return True

    def before_join(self, *_: object) -> bool:
        """Do nothing."""
        return True

    async def leave(self) -> None:
        """Do nothing."""


async def report(work: Awaitable[None], then: Then) -> None:
    """Do some work, and report that it is done or why it could not be."""
    try:
        await work
    except RelayError as error:
        then(error)
    except Exception:
        then(RelayError("The relay failed; try again."))
        raise
    else:
        then(None)
