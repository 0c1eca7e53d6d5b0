"""Containers: the forms in which programs that know nothing of the relay play a channel, over HTTP."""

from enum import StrEnum


class Container(StrEnum):
    """A container. The relay sends a channel in it without an end, as a radio station does."""

    OGG = "ogg"
    """Ogg with Opus (RFC 7845)."""

    MP3 = "mp3"
    """MPEG-1 audio, layer III."""

    WAV = "wav"
    """16-bit PCM behind a header that leaves the length open."""

    @property
    def ending(self) -> str:
        """How an address of this container ends."""
        return ".opus" if self is Container.OGG else f".{self}"

    @property
    def media_type(self) -> str:
        """The media type of a response."""
        return "audio/mpeg" if self is Container.MP3 else f"audio/{self}"
