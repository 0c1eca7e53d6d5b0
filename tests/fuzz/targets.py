"""Everything that reads untrusted input, each as a function of bytes that must not raise.

The targets catch the relay's intended refusals; any other exception is a bug. Inputs that once revealed a bug lie in
`found/TARGET/`, and every test run tries them.
"""

import io
import tomllib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import jwt
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader

from relay.access.tokens import TokenVerifier, read_secret
from relay.limits.addresses import TrustedProxies
from relay.media.ogg_opus import OggOpusPages, OpusHead, OpusPackets
from relay.pages.files import Pages
from relay.pages.qr_codes import QrCodes
from relay.protocol.http1 import Http1, UnreadableRequestError
from relay.protocol.json_messages import decode
from relay.protocol.messages import FROM_BROADCASTER, FROM_LISTENER, TO_BROADCASTER, TO_LISTENER, Ping
from relay.protocol.operator_requests import allowed_methods, is_operator_path, read_operator_request
from relay.protocol.requests import read_connect_request, split_target, websocket_role
from relay.protocol.wire import Header, pack_audio, split_audio, unpack_audio
from relay.server.credentials import offered_subprotocols, read_credential
from relay.settings.configuration import KEYS, resolve
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.errors import ConfigurationError, PeerError, UserError
from relay.vocabulary.origins import is_allowed_origin

SECRET = "a-secret-of-the-fuzzer-that-is-long-enough"  # noqa: S105 - a key for these inputs only
FOUND = Path(__file__).parent / "found"

OPUS = AudioFormat(Codec.OPUS, 48_000)
_OGG = OggOpusPages(1, OpusHead(1), [("TITLE", "x")])

_verifier = TokenVerifier([read_secret(SECRET, "the fuzzer")], "relay", "relay")
_proxies = TrustedProxies(("127.0.0.1", "10.0.0.0/8", "::1"))


def fuzz_header(data: bytes) -> None:
    """The header before audio, and the audio of a broadcaster."""
    with suppress(PeerError):
        header = Header.unpack(data)
        assert Header.unpack(header.pack()) == header
    for audio_format in (AudioFormat(), AudioFormat(rate=48_000, channels=2), OPUS):
        with suppress(PeerError):
            assert b"".join(piece.audio for piece in split_audio(data, audio_format)) == data


def fuzz_packed(data: bytes) -> None:
    """A packed message, and an Opus packet that silence must be able to replace."""
    with suppress(PeerError):
        frames = unpack_audio(data, OPUS)
        if Header.unpack(data).is_packed and frames:
            assert pack_audio(frames[0].header, [frame.payload for frame in frames])[2:] == data[2:]
    with suppress(PeerError):
        piece = OPUS.measure(data)
        assert OPUS.measure(OPUS.silence(piece).audio).ticks == piece.ticks


def fuzz_ogg(data: bytes) -> None:
    """An Ogg Opus file, of which every packet must be well-formed."""
    with suppress(UserError):
        for packet in OpusPackets(io.BytesIO(data)):
            OPUS.measure(packet)


def fuzz_message(data: bytes) -> None:
    """A control message from any peer, and its effects."""
    with suppress(PeerError):
        message = decode(data.decode(errors="replace"))
        decode(Ping.read(message).answer(1), max_bytes=1 << 20)
        for kind in {*FROM_LISTENER, *FROM_BROADCASTER, *TO_LISTENER, *TO_BROADCASTER}:
            with suppress(PeerError):
                read = kind.read(message)
                assert kind.read(decode(read.text(), max_bytes=1 << 20)) == read


def fuzz_request(data: bytes) -> None:
    """The data of a connection, whole and in small pieces: both give the same requests, with responses or a fault."""
    whole, in_pieces = _read_requests([data]), _read_requests([data[at : at + 7] for at in range(0, len(data), 7)])
    # With "Expect: 100-continue", the relay answers before the body if the body comes later.
    assert whole == in_pieces or b"100-continue" in data.lower()


def _read_requests(pieces: list[bytes]) -> list[object]:
    """Read up to the first request that another request follows, as a connection does."""
    http, found = Http1(), list[object]()
    for number, piece in enumerate(pieces):
        try:
            head = http.receive(piece, 4096, 1000)
        except UnreadableRequestError as error:
            http.answer(error.status, "", [("Connection", "close"), ("Content-Length", "2")], b"no")
            return [*found, error.fault]
        if head is not None:
            rest = http.rest + b"".join(pieces[number + 1 :])
            http.answer(404, "", [("Content-Length", "2"), *([("Connection", "close")] if rest else [])], b"no")
            found.append((head, Headers(head.headers), rest))
            if not http.is_open:
                break
    return found


def fuzz_query(data: bytes) -> None:
    """The target of a WebSocket request."""
    path, query = split_target(data.decode("latin-1"))
    role = websocket_role(path)
    if role is not None:
        with suppress(PeerError):
            read_connect_request(role, path, query)


def fuzz_operator(data: bytes) -> None:
    """An operator's request: the method and the target, separated by a space."""
    method, _, target = data.decode("latin-1").partition(" ")
    path = split_target(target)[0]
    if is_operator_path(path) and method in allowed_methods(path):
        with suppress(PeerError):
            read_operator_request(method, path)


def fuzz_headers(data: bytes) -> None:
    """The headers of a request, one per line: credentials, address and origin."""
    headers = Headers()
    for line in data.decode("latin-1").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            with suppress(InvalidHeader):  # the library itself rejects these
                headers[name] = value.strip()
    read_credential(headers, offered_subprotocols(headers), "&".join(headers.get_all("X-Query")))
    _proxies.find_client("127.0.0.1", headers.get_all("X-Forwarded-For"))
    origins, hosts = headers.get_all("Origin"), headers.get_all("Host")
    is_allowed_origin(("same-origin", "https://a.example"), origins, hosts)
    assert is_allowed_origin(("*",), origins, hosts) is (len(origins) < 2)


def fuzz_token(data: bytes) -> None:
    """A token, and one with arbitrary claims that is signed with the right key."""
    with suppress(PeerError):
        _verifier.verify(data.decode("latin-1"))
    signed = jwt.api_jws.encode(data, SECRET, "HS256", {"kid": "secret"})
    with suppress(PeerError):
        _verifier.verify(signed)


def fuzz_configuration(data: bytes) -> None:
    """A configuration file, and the same values as environment variables."""
    with suppress(ValueError, RecursionError):
        document = tomllib.loads(data.decode(errors="replace"))
        with suppress(ConfigurationError):
            resolve(document, "fuzz.toml", {}, {})
    lines = data.decode(errors="replace").split("\n")
    environ = {f"RELAY_{name.upper()}": value for name, _, value in (line.partition("=") for line in lines)}
    with suppress(ConfigurationError):
        resolve({}, "", environ, {})


def fuzz_page(data: bytes) -> None:
    """The target of a request for a page or a QR code, and the host, one per line."""
    target, _, host = data.decode("latin-1").partition("\n")
    path, query = split_target(target)
    pages, codes = _tables()
    with suppress(PeerError):
        page = pages.find(path)
        assert page is None or b"root:" not in page.body, "a page from outside of the table"
    with suppress(PeerError):
        codes.find(path, query, host, lambda: None)


@cache
def _tables() -> tuple[Pages, QrCodes]:
    return Pages(), QrCodes()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": fuzz_header,
    "packed": fuzz_packed,
    "ogg": fuzz_ogg,
    "message": fuzz_message,
    "request": fuzz_request,
    "query": fuzz_query,
    "operator": fuzz_operator,
    "headers": fuzz_headers,
    "token": fuzz_token,
    "configuration": fuzz_configuration,
    "page": fuzz_page,
}

SEEDS: dict[str, list[bytes]] = {
    "header": [bytes.fromhex("01000001000000020000028000000bb8") + bytes(640)],
    "packed": [
        bytes.fromhex("0101ffffffffffffffffffc8ffffffff0003f8fffe000518ffff0102"),
        bytes.fromhex("fbc20101fffffe00"),
        bytes.fromhex("fafc0000"),
    ],
    "ogg": [_OGG.head() + _OGG.pack([b"\xf8\xff\xfe"] * 3) + _OGG.pack([b"\xf8" + bytes(600)], is_last=True)],
    "message": [
        b'{"type":"ping","id":1}',
        b'{"type":"ping","message_type":1,"members":{},"id":1e999}',
        b'{"type":"switch","channel":"de"}',
        b'{"type":"hello","format":{"codec":"pcm_s16le","rate":16000,"channels":1,"clock_rate":16000}}',
        b'{"type":"clear","deep":[[[{"a":[1e308,-0,"\\ud800"]}]]]}',
    ],
    "request": [
        b"GET /listen/ev1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST http://a/p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nT: 1\r\n\r\n",
        b"CONNECT a.example:1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x80",
        b"PUT / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n\r\n01234",
    ],
    "query": [
        b"/v1/listen/ev1/de?buffer_ms=500&coalesce_ms=40&burst_ms=1000&codec=pcm_s16le",
        b"/v1/listen/ev1?epoch=65535&after=4294967295",
        b"/v1/broadcast/ev1?rate=48000&channels=2&pace=speech&takeover=1&name=Deutsch%20%C3%BC&lang=de-AT",
    ],
    "operator": [
        b"GET /v1/sessions",
        b"DELETE /v1/sessions/ev1/de?token=x",
        b"DELETE /v1/sessions/ev1/connections/12c34b47-1fa3-4265-8bc5-e3716646d37c",
    ],
    "headers": [
        b"Authorization: Bearer a.b.c\nSec-WebSocket-Protocol: relay.v1, relay.token.abc\nX-Query: token=abc",
        b"Origin: https://a.example:443\nHost: a.example\nX-Forwarded-For: 198.51.100.7, [2001:db8::1]:80, 10.0.0.1",
    ],
    "token": [
        b'{"iss":"relay","aud":["relay"],"exp":4102444800,"nbf":0,"role":"listen","session":"ev*","channel":["*"]}',
        b"eyJhbGciOiJIUzI1NiIsImtpZCI6InNlY3JldCJ9.eyJpc3MiOiJyZWxheSJ9.c2ln",
    ],
    "configuration": [
        b'[server]\nhost = "::"\nport = 8080\n[listener]\nstall_limit_seconds = "never"\nhistory_seconds = 1e1',
        b'[access]\nsessions = ["ev*"]\nallowed_origins = ["*"]\n[limits]\nmax_lag_ms = 500',
        b'server_port=8080\nlistener_stall_limit_seconds=never\naccess_sessions=["a"]\nlimits_max_lag_ms=-1',
        *(key.variable.removeprefix("RELAY_").encode() + b"=1" for key in KEYS.values()),
    ],
    "page": [
        b"/listen/ev1/de\nrelay.example:8080",
        b"/qr/listen/ev1/de.svg?scheme=https&prefix=/relay\n[2001:db8::1]:443",
        b"/assets/../../etc/passwd\nx",
        b"/assets/wire.js\nlocalhost",
    ],
}  # fmt: skip


def found(target: str) -> list[Path]:
    """Return the inputs that once revealed a bug."""
    return sorted((FOUND / target).glob("*")) if (FOUND / target).is_dir() else []
