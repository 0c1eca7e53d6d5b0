"""Standard input: bytes as they arrive, and raw PCM made of them.

Invariants: a non-blocking descriptor is waited for and stays non-blocking, since other processes share that flag.
Bytes that were looked at are read again. A pipe that stays open is read as data arrives.
"""

import os
import select
from collections.abc import Iterator

from relay.media.source import AudioSource
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import UserError

_READ_BYTES = 16 * 1024
"""The largest read from a pipe."""


class Pipe:
    """A descriptor that is read forward, with a look-ahead."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ahead = b""

    def read(self, most_bytes: int) -> bytes:
        """Read available data, at most `most_bytes`, and wait for the first byte; return nothing at the end.

        Raises:
            UserError: The pipe cannot be read.
        """
        if not self._ahead:
            return self._receive(most_bytes)
        data, self._ahead = self._ahead[:most_bytes], self._ahead[most_bytes:]
        return data

    def look(self, known_bytes: int, most_bytes: int, wait_seconds: float | None = None) -> bytes:
        """Look at more than `known_bytes` of the data ahead.

        Args:
            known_bytes: How much the caller has already seen.
            most_bytes: How far ahead to look at most.
            wait_seconds: How long to wait for more; None waits until it arrives.

        Returns:
            Everything seen so far. It did not grow if the pipe ended or nothing arrived in time.

        Raises:
            UserError: The pipe cannot be read.
        """
        if len(self._ahead) <= known_bytes < most_bytes and (wait_seconds is None or self._is_ready(wait_seconds)):
            self._ahead += self._receive(most_bytes - len(self._ahead))
        return self._ahead[:most_bytes]

    def put_back(self, data: bytes) -> None:
        """Put back `data`, which was read last, so that it is read again."""
        self._ahead = data + self._ahead

    def _receive(self, most_bytes: int) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, min(most_bytes, _READ_BYTES))
            except BlockingIOError:
                self._is_ready(None)
            except OSError as error:
                raise UserError(f"Standard input cannot be read: {error.strerror}.") from error

    def _is_ready(self, wait_seconds: float | None) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(None if wait_seconds is None else max(0.0, wait_seconds) * 1000))


def look_at_beginning(pipe: Pipe, most_bytes: int, wait_seconds: float) -> Iterator[bytes]:
    """Yield more and more of the beginning, until `wait_seconds` after its first byte."""
    seen = pipe.look(0, most_bytes)
    deadline = relay_clock() + wait_seconds
    known_bytes = -1
    while len(seen) > known_bytes:
        yield seen
        known_bytes = len(seen)
        seen = pipe.look(known_bytes, most_bytes, deadline - relay_clock())


class PcmInput(AudioSource):
    """16-bit PCM from a pipe as it arrives, in whole samples, at most 16 KiB at once."""

    def __init__(self, pipe: Pipe, audio_format: AudioFormat, name: str) -> None:
        self.name = name
        self.audio_format = audio_format
        self.duration_seconds: float | None = None
        self.damaged_packets = 0
        self.remark: str | None = None
        self._pipe = pipe
        self._total_bytes = 0

    def blocks(self) -> Iterator[bytes]:
        """Read until the other end closes.

        Raises:
            UserError: The pipe cannot be read, is empty, or ends in the middle of a sample.
        """
        sample_bytes = self.audio_format.sample_bytes
        rest = b""
        while data := self._pipe.read(self._wanted_bytes()):
            self._total_bytes += len(data)
            data = rest + data
            whole_bytes = len(data) - len(data) % sample_bytes
            rest = data[whole_bytes:]
            if whole_bytes:
                yield data[:whole_bytes]
        if self._total_bytes == 0:
            raise UserError("Standard input ended without any audio.")
        self._check_end(rest)

    def _wanted_bytes(self) -> int:
        """Return how many bytes to read next; 0 when all were read."""
        return _READ_BYTES

    def _check_end(self, rest: bytes) -> None:
        """Check the end of the pipe. `rest` follows the last whole sample."""
        if rest:
            raise UserError(
                f"Standard input ended in the middle of a sample: {self._total_bytes} bytes are not a multiple of "
                f"{self.audio_format.sample_bytes} (16-bit, {self.audio_format.channels} channel(s)). All whole "
                "samples were sent; check the format of the source."
            )


class RawInput(PcmInput):
    """Raw 16-bit PCM from standard input, whatever its first bytes look like."""

    def __init__(self, descriptor: int, audio_format: AudioFormat) -> None:
        super().__init__(Pipe(descriptor), audio_format, "standard input as raw PCM")
