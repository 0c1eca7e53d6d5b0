"""What stands in place of a connection's transport once the connection is lost.

The library aborts a transport when a connection is closed that was lost already. An asyncio transport that was closed
while bytes waited in it, and has written them since, raises an `AttributeError` then: `_call_connection_lost` has
forgotten its event loop, which `_force_close` needs.
"""

import asyncio
from typing import Any


class LostTransport(asyncio.Transport):
    """Does nothing any more; what was known of the connection it still tells."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """Stand in for a transport that has reported the loss."""
        super().__init__()
        self._transport = transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as it is declared
        """Tell what the transport tells."""
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Tell that it is."""
        return True

    def get_write_buffer_size(self) -> int:
        """Tell that nothing waits."""
        return 0

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        """Write to nobody."""

    def abort(self) -> None:
        """Change nothing."""

    close = write_eof = pause_reading = resume_reading = abort
