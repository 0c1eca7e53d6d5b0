"""Opus packets: how long their audio lasts, and whether they are well-formed (RFC 6716, section 3).

The relay passes packets on untouched. It reads only their first bytes, and needs no codec for that.
"""

from relay.vocabulary.errors import AudioFaultError

CLOCK_RATE = 48_000
"""Ticks per second. Every duration of Opus is counted at this rate (RFC 7587, section 4.1)."""

MAX_TICKS = 5760
"""A packet lasts at most 120 ms (RFC 6716, R5)."""

MAX_BYTES = 61_440
"""Longer packets are mostly padding, and RFC 7845, section 6, lets receivers refuse them."""

_MAX_FRAME_BYTES = 1275

_FRAME_TICKS = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4
"""The duration of a frame by the upper five bits of the first byte: SILK, hybrid and CELT (RFC 6716, table 2)."""

_CELT_FULL_BAND = 28
"""The first of the four configurations of CELT at 48 kHz, whose frames last 2.5, 5, 10 and 20 ms."""

_SILENT_FRAME = b"\xff\xfe"
"""A CELT frame whose first bit, of probability 2**-15, says that it is silent (RFC 6716, section 4.3)."""


def measure(packet: bytes) -> int:
    """Return the duration of a packet in ticks of 48 kHz.

    Raises:
        AudioFaultError: The packet breaks one of the rules R1 to R7 of RFC 6716, section 3.4, or is longer than 61 440
            bytes. No decoder takes such a packet.
    """
    if not packet:
        raise _fault("it is empty", "R1")
    if len(packet) > MAX_BYTES:
        raise AudioFaultError(f"An Opus packet of {len(packet)} bytes is longer than {MAX_BYTES} bytes.")
    frame_ticks = _FRAME_TICKS[packet[0] >> 3]
    match packet[0] & 3:
        case 0:
            count, last_bytes = 1, len(packet) - 1
        case 1:
            count, last_bytes = 2, _share(len(packet) - 1, 2, "R3")
        case 2:
            count, last_bytes = 2, _after_lengths(packet, 1, len(packet), 1, "R4")
        case _:
            count, last_bytes = _many(packet, frame_ticks)
    if last_bytes > _MAX_FRAME_BYTES:
        raise _fault(f"a frame of {last_bytes} bytes is longer than {_MAX_FRAME_BYTES}", "R2")
    return count * frame_ticks


def silence(ticks: int, channels: int) -> bytes:
    """Return a packet of digital silence.

    Args:
        ticks: Its duration, which a packet can have: a multiple of 2.5 ms, at most 120 ms.
        channels: 1 or 2.

    Raises:
        ValueError: No packet has this duration.
    """
    configuration, frame_ticks = next(
        ((_CELT_FULL_BAND + at, 120 << at) for at in (3, 2, 1, 0) if ticks % (120 << at) == 0), (0, 1)
    )
    if not 0 < ticks <= MAX_TICKS or not configuration:
        raise ValueError(f"an Opus packet cannot last {ticks} ticks of 48 kHz")
    first, count = configuration << 3 | (channels - 1) << 2, ticks // frame_ticks
    if count == 1:
        return bytes([first]) + _SILENT_FRAME
    return bytes([first | 3, count]) + count * _SILENT_FRAME


def _many(packet: bytes, frame_ticks: int) -> tuple[int, int]:
    """Read a packet of code 3. Return the number of its frames and the length of the last one."""
    if len(packet) < 2:  # noqa: PLR2004 - the first byte and the number of frames
        raise _fault("it ends before its number of frames", "R6")
    count = packet[1] & 0x3F
    if not 0 < count * frame_ticks <= MAX_TICKS:
        raise _fault(f"{count} frames of {frame_ticks / 48:g} ms are not 2.5 to 120 ms", "R5")
    is_variable, is_padded = packet[1] & 0x80, packet[1] & 0x40
    rule = "R7" if is_variable else "R6"
    at, end = 2, len(packet)
    while is_padded:
        if at >= end:
            raise _fault("its padding is longer than the packet", rule)
        is_padded = packet[at] == 255  # noqa: PLR2004 - 254 bytes of padding, and another length follows
        end -= min(packet[at], 254)
        at += 1
    if at > end:
        raise _fault("its padding is longer than the packet", rule)
    if is_variable:
        return count, _after_lengths(packet, at, end, count - 1, rule)
    return count, _share(end - at, count, rule)


def _share(whole_bytes: int, count: int, rule: str) -> int:
    if whole_bytes % count:
        raise _fault(f"{whole_bytes} bytes are not {count} frames of one length", rule)
    return whole_bytes // count


def _after_lengths(packet: bytes, at: int, end: int, count: int, rule: str) -> int:
    """Read `count` lengths of frames at `at`. Return how many bytes before `end` remain for the last frame."""
    frames_bytes = 0
    for _ in range(count):
        if at >= end or (packet[at] >= 252 and at + 1 >= end):  # noqa: PLR2004 - lengths from 252 take two bytes
            raise _fault("it ends before the lengths of its frames", rule)
        if packet[at] < 252:  # noqa: PLR2004
            frames_bytes, at = frames_bytes + packet[at], at + 1
        else:
            frames_bytes, at = frames_bytes + packet[at] + 4 * packet[at + 1], at + 2
    if at + frames_bytes > end:
        raise _fault("its frames are longer than the packet", rule)
    return end - at - frames_bytes


def _fault(what: str, rule: str) -> AudioFaultError:
    return AudioFaultError(f"This is no Opus packet: {what} (RFC 6716, {rule}).")
