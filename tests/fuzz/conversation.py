"""What a client might send to a relay: valid, almost valid and hostile input, all derived from a number.

Everything is bytes on a raw socket, so no library on this side corrects them.
"""

import json
import random
import struct
from collections.abc import Callable

ROLES = ("listen", "broadcast")

KEY = b"AAAAAAAAAAAAAAAAAAAAAA=="

_CONTROL = (
    {"type": "ping", "id": 1},
    {"type": "switch", "channel": "main"},
    {"type": "switch", "channel": {"a": []}},
    {"type": "clear"},
    {"type": "end"},
    {"type": "future", "deep": [[[[]]]]},
    {"type": 7},
    ["ping"],
    "ping",
    None,
)


class Conversation:
    """The client's side of a conversation.

    Attributes:
        number: The seed of the whole conversation.
        pieces: The data to send, piece by piece.
        ending: How it ends: "close", "reset", "half close", or "stay", which reads until the relay ends the connection.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._choice = random.Random(number)  # noqa: S311 - repeatable, not a secret
        handshake = self._handshake()
        frames = b"".join(self._frame() for _ in range(self._choice.choice((0, 1, 3, 20))))
        self.pieces = self._cut(handshake + frames)
        self.ending = self._choice.choice(("close", "reset", "half close", "stay"))

    def _chance(self, of: float) -> bool:
        return self._choice.random() < of

    def _bytes(self, most: int) -> bytes:
        return self._choice.randbytes(self._choice.randint(0, most))

    def _cut(self, data: bytes) -> list[bytes]:
        """Cut the data into packets."""
        pieces = []
        while data:
            size = self._choice.choice((1, 2, 7, 100, len(data)))
            pieces.append(data[:size])
            data = data[size:]
            if len(pieces) >= 50:
                size = len(data)
        return pieces

    def _handshake(self) -> bytes:
        role = self._choice.choice(ROLES)
        # These sessions keep it away from the healthy listeners; several conversations can share one.
        session = f"fuzz{self._choice.randrange(4)}"
        query = self._choice.choice(("", "?takeover=1", "?rate=48000&channels=2", f"?buffer_ms={self._bytes(3).hex()}"))
        target = f"/v1/{role}/{session}{query}".encode()
        if self._chance(0.1):
            # No client is an operator here, so none may end the healthy session.
            target = self._choice.choice((b"/v1/sessions", b"/v1/sessions/ev1", b"/v1/sessions/ev1/main"))
        lines = [
            self._choice.choice((b"GET ", b"GET ", b"GET ", b"DELETE ")) + target + b" HTTP/1.1",
            b"Host: x",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Key: " + KEY,
            b"Sec-WebSocket-Version: 13",
        ]
        if self._chance(0.8):
            lines.append(b"Sec-WebSocket-Protocol: relay.v1")
        if self._chance(0.2):
            lines.append(b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
        if self._chance(0.15):
            self._mutate_lines(lines)
        handshake = b"\r\n".join(lines) + b"\r\n\r\n"
        return self.mutate(handshake) if self._chance(0.1) else handshake

    def _mutate_lines(self, lines: list[bytes]) -> None:
        match self._choice.randrange(6):
            case 0:
                del lines[self._choice.randrange(len(lines))]
            case 1:
                lines.append(self._choice.choice(lines))
            case 2:
                lines.append(b"X: " + self._bytes(2000).replace(b"\r\n", b""))
            case 3:
                lines.append(b"Content-Length: %d" % self._choice.choice((-1, 0, 5, 1 << 70)))
            case 4:
                lines.append(b"Transfer-Encoding: chunked")
            case _:
                self._choice.shuffle(lines)

    def mutate(self, data: bytes) -> bytes:
        """Change, remove or insert a few bytes."""
        changed = bytearray(data)
        for _ in range(self._choice.randint(1, 4)):
            at = self._choice.randrange(len(changed) + 1)
            match self._choice.randrange(3):
                case 0:
                    changed[at : at + 1] = self._choice.randbytes(1)
                case 1:
                    del changed[at : at + self._choice.randint(1, 8)]
                case _:
                    changed[at:at] = self._bytes(8)
        return bytes(changed)

    def _frame(self) -> bytes:
        codes = (0, 999, 1000, 1005, 1006, 1011, 4500, 65535)
        makers: tuple[Callable[[], bytes], ...] = (
            lambda: frame(2, self._choice.randbytes(640)),
            lambda: frame(2, self._bytes(5000)),
            lambda: frame(1, json.dumps(self._choice.choice(_CONTROL)).encode()),
            lambda: frame(1, self.mutate(b'{"type":"ping","id":"x"}')),
            lambda: frame(self._choice.choice((8, 9, 10)), self._bytes(self._choice.choice((2, 125, 126)))),
            lambda: frame(8, struct.pack("!H", self._choice.choice(codes)) + self._bytes(4)),
            self._fragments,
            self._broken_frame,
        )
        return self._choice.choices(makers, (2, 1, 2, 1, 1, 1, 1, 1))[0]()

    def _fragments(self) -> bytes:
        opcode = self._choice.choice((1, 2))
        parts = [frame(opcode if first else 0, self._bytes(50), fin=False) for first in (True, False, False)]
        if self._chance(0.3):
            parts.insert(1, frame(9, b"between"))
        if self._chance(0.7):
            parts.append(frame(0, b"end"))
        if self._chance(0.2):
            self._choice.shuffle(parts)
        return b"".join(parts)

    def _broken_frame(self) -> bytes:
        lengths = (1 << 63, 1 << 62, 300_000, 5)
        makers: tuple[Callable[[], bytes], ...] = (
            lambda: frame(self._choice.randrange(16), self._bytes(20), reserved=self._choice.randrange(8)),
            lambda: frame(2, self._bytes(20), masked=False),
            lambda: b"\x82\xff" + self._choice.choice(lengths).to_bytes(8) + bytes(4),
            lambda: b"\x82\xfe\x00\x05" + bytes(9),
            lambda: self.mutate(frame(2, bytes(640))),
            lambda: self._bytes(200),
        )
        return self._choice.choice(makers)()


def frame(opcode: int, payload: bytes, *, fin: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """Return a WebSocket frame by RFC 6455 section 5.2, valid or not, with a mask of zeros."""
    first = fin << 7 | reserved << 4 | opcode
    mask = bytes(4) if masked else b""
    if len(payload) < 126:
        length = bytes([masked << 7 | len(payload)])
    elif len(payload) < 1 << 16:
        length = bytes([masked << 7 | 126]) + len(payload).to_bytes(2)
    else:
        length = bytes([masked << 7 | 127]) + len(payload).to_bytes(8)
    return bytes([first]) + length + mask + payload
