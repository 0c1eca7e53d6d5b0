"""Messages that exceed the limits, ready for a socket, and the roles that send them."""

from websockets.frames import Frame, Opcode


def frames(opcode: Opcode, payload: bytes, count: int, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin=fin).serialize(mask=True) * count


FLOODS = {
    "pings": frames(Opcode.PING, bytes(125), 500),
    "empty pings": frames(Opcode.PING, b"", 10_000),
    "pongs": frames(Opcode.PONG, b"", 10_000),
    "texts": frames(Opcode.TEXT, b'{"type":"ping"}', 3_000),
    "fragments": frames(Opcode.TEXT, b"x", 1, fin=False) + frames(Opcode.CONT, b"", 10_000, fin=False),
    "empty audio": frames(Opcode.BINARY, b"", 10_000),
    "tiny audio": frames(Opcode.BINARY, b"\1\2", 10_000),
}

FLOODERS = {
    "listener": "/v1/listen/ev1",
    "broadcaster": "/v1/broadcast/other",
    "refused": "/v1/listen/ev1?buffer_ms=none",
}
