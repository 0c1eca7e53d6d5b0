"""Audio for a broadcaster, as blocks of 16-bit PCM, from files and pipes.

Invariants: memory never holds a whole file or pipe. Blocks are whole samples. Joined, they are the audio exactly once.
16-bit WAV passes through unchanged without an outside library; PyAV decodes everything else. No other file is opened
and no address contacted, whatever a file names. Unreadable audio is a `UserError` of one sentence.
"""

from relay.media.opening import open_audio, open_pipe
from relay.media.pipe import RawInput
from relay.media.source import AudioSource

__all__ = ["AudioSource", "RawInput", "open_audio", "open_pipe"]
