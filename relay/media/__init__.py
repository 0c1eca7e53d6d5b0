"""Audio for a broadcaster, as blocks of 16-bit PCM: files, and what comes through a pipe.

Invariants: neither a file nor a pipe is ever held in memory as a whole; blocks are whole samples, and joined they are
the audio exactly once; 16-bit WAV is passed on untouched and needs no outside library, everything else is decoded by
PyAV; no other file is opened and no address asked, whatever a file names; what can not be read is a `UserError` with
one sentence.
"""

from relay.media.opening import open_audio, open_pipe
from relay.media.pipe import RawInput
from relay.media.source import AudioSource

__all__ = ["AudioSource", "RawInput", "open_audio", "open_pipe"]
