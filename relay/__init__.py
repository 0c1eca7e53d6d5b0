"""relay carries one broadcaster's live audio to thousands of listeners, each through its own bounded buffer."""

from relay.audio.audio_buffer_manager import AudioBufferManager

__all__ = ["AudioBufferManager", "__version__"]

__version__ = "0.1.0"
