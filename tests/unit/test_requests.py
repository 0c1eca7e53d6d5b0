"""Addresses and queries: which are accepted, and the error for the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.requests import (
    ConnectRequest,
    Delivery,
    Offer,
    Resume,
    Role,
    read_connect_request,
    split_target,
    websocket_role,
)
from relay.vocabulary.audio import AudioFormat, Codec, Pace
from relay.vocabulary.errors import BadRequestError, CloseCode
from relay.vocabulary.labels import Label
from relay.vocabulary.names import ChannelAddress


def read(target: str) -> ConnectRequest:
    path, query = split_target(target)
    role = websocket_role(path)
    assert role is not None
    return read_connect_request(role, path, query)


def test_a_listener() -> None:
    assert read("/v1/listen/ev1") == ConnectRequest(Role.LISTENER, ChannelAddress("ev1", "main"))
    assert read("/v1/listen/ev1/fr?codec=opus,pcm_s16le").address == ChannelAddress("ev1", "fr")
    assert read("/v1/listen/ev1?buffer_ms=600&coalesce_ms=40").delivery == Delivery(600, 40)
    resumed = read("/v1/listen/ev1?epoch=7&after=4294967295&burst_ms=500").delivery
    assert resumed == Delivery(burst_ms=500, resume=Resume(epoch=7, after=4_294_967_295))
    assert read("/v1/listen/ev1?epoch=7").delivery.resume is None


def test_a_broadcaster() -> None:
    assert read("/v1/broadcast/ev1").offer == Offer(AudioFormat(rate=16_000, channels=1), Pace.LIVE)
    request = read("/v1/broadcast/Ev.1_~-/de?codec=pcm_s16le&rate=48000&channels=2&whatever=1")
    assert request.address == ChannelAddress("Ev.1_~-", "de")
    assert request.offer.audio_format == AudioFormat(rate=48_000, channels=2)
    assert read("/v1/broadcast/ev1?codec=opus").offer.audio_format == AudioFormat(Codec.OPUS, 48_000, 1)
    asked = read("/v1/broadcast/ev1?codec=opus&rate=24000&channels=2").offer.audio_format
    assert asked == AudioFormat(Codec.OPUS, 24_000, 2)
    described = read("/v1/broadcast/ev1?pace=speech&takeover=1&name=Fran%C3%A7ais+(cabine)&lang=fr-CA&resume=c1").offer
    label = Label("Français (cabine)", "fr-CA")
    assert described == Offer(AudioFormat(), Pace.SPEECH, takeover=True, label=label, resume="c1")


@pytest.mark.parametrize("path", ["/", "/v1/listen", "/v1/listens/ev1", "/v2/listen/ev1", "/listen/ev1", "*", ""])
def test_other_paths_are_no_websocket_addresses(path: str) -> None:
    assert websocket_role(path) is None


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("/v1/listen/", "session id ''"),
        ("/v1/listen/.", "not only dots"),
        ("/v1/listen/a%20b", "session id 'a%20b'"),
        ("/v1/listen/" + "x" * 65, "1 to 64"),
        ("/v1/listen/ev1/", "channel id ''"),
        ("/v1/listen/ev1/caf\u00e9", r"channel id 'caf\\xe9'"),
        ("/v1/listen/ev1/main/more", "/v1/listen/SESSION/CHANNEL"),
        ("/v1/listen/ev1?codec=flac", "codec must name one of pcm_s16le, opus, not 'flac'"),
        ("/v1/listen/ev1?buffer_ms=ten", "buffer_ms must be a whole number of at most 10 ASCII digits, not 'ten'"),
        ("/v1/listen/ev1?coalesce_ms=-1", "coalesce_ms must be a whole number"),
        ("/v1/listen/ev1?after=17", "after needs epoch"),
        ("/v1/listen/ev1?epoch=7&after=-1", "after must be a whole number"),
        ("/v1/broadcast/ev1?pace=fast", "pace must be live or speech, not 'fast'"),
        ("/v1/broadcast/ev1?takeover=yes", "takeover must be 0 or 1, not 'yes'"),
        ("/v1/broadcast/ev1?name=", "name must be text that people can read, but '' has nothing visible"),
        ("/v1/broadcast/ev1?name=a%0Ab", r"name must be .* but 'a\\nb' has a control"),
        ("/v1/broadcast/ev1?name=" + "x" * 65, "name must have 1 to 64 characters, not 65"),
        ("/v1/broadcast/ev1?lang=german%21", "lang must be a BCP 47 tag such as de or pt-BR, not 'german!'"),
        ("/v1/broadcast/ev1?codec=mp3", "codec must be one of pcm_s16le, opus, not 'mp3'"),
        ("/v1/broadcast/ev1?codec=opus&rate=44100", "one of 8000, 12000, 16000, 24000, 48000 for opus, not 44100"),
        ("/v1/broadcast/ev1?rate=16001", "rate must be one of 8000, .*, 48000, not 16001"),
        ("/v1/broadcast/ev1?rate=-1", "rate must be a whole number of at most 10 ASCII digits, not '-1'"),
        ("/v1/broadcast/ev1?rate=\u0661", "ASCII digits"),
        ("/v1/broadcast/ev1?rate=", "ASCII digits, not ''"),
        ("/v1/broadcast/ev1?channels=3", "channels must be 1 or 2, not 3"),
        ("/v1/broadcast/ev1?channels=1&channels=1", "'channels' more than once"),
        ("/v1/broadcast/ev1?codec=x%0Ay", r"not 'x\\ny'"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(target: str, says: str) -> None:
    with pytest.raises(BadRequestError, match=says) as caught:
        read(target)
    assert caught.value.close_code is CloseCode.BAD_REQUEST
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


@given(st.text(), st.text())
def test_no_target_is_anything_but_a_request_or_a_bad_request(path: str, query: str) -> None:
    for role in Role:
        try:
            request = read_connect_request(role, f"/v1/{role}/{path}", query)
        except BadRequestError as error:
            assert str(error).isprintable()
        else:
            assert request.role is role
