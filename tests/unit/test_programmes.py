"""Programmes: one stream of audio without an end, whatever the sources send, and decoders that play it."""

import io
from collections.abc import Iterable, Iterator
from itertools import pairwise

import av
import numpy as np
import pytest

from relay.media import libopus, programme
from relay.media.ogg_pages import Page, PageReader
from relay.media.programme import Programme, ProgrammeSettings, check_container, head, open_programme
from relay.media.transcoding import Encoded, OpusEncoding, PcmToOpus
from relay.vocabulary import opus_packet
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Codec, Frame, Place
from relay.vocabulary.containers import Container
from relay.vocabulary.errors import UserError
from tests.support.tone import Samples, sine, to_pcm

SERIAL = 7
HZ = 1000
SETTINGS = ProgrammeSettings()
HELD_SECONDS = 0.25
"""A programme gathers a tenth of a second, and LAME holds some frames back."""
MONO, STEREO = AudioFormat(), AudioFormat(rate=44_100, channels=2)


def frames(audio_format: AudioFormat, seconds: float, frequency: int = HZ) -> Iterator[Frame]:
    """A tone in frames of 20 ms."""
    tone = sine(frequency, audio_format.rate, seconds)
    pcm = to_pcm(*[tone] * audio_format.channels)
    size = audio_format.bytes_within(0.02)
    place = Place(0, 1, 0, 0)
    for at in range(0, len(pcm), size):
        piece = audio_format.measure(pcm[at : at + size])
        end = Place(place.position + 1, 1, place.seq + 1, place.media_time + piece.ticks)
        yield Frame(piece.audio, at / audio_format.bytes_per_second, piece.flicks, start=place, end=end, wire=b"")
        place = end


def opus_frames(seconds: float) -> Iterator[Frame]:
    encoder = PcmToOpus(AudioFormat(rate=48_000), OpusEncoding())
    for pcm in frames(AudioFormat(rate=48_000), seconds):
        for each in encoder.take(pcm):
            yield Frame(
                *(each.audio, each.due, each.ticks * FLICKS_PER_SECOND // 48_000),
                start=Place(each.seq, 1, each.seq, each.media_time),
                end=Place(each.seq + 1, 1, each.seq + 1, each.media_time + each.ticks),
                wire=b"",
            )


def air(aired: Programme, source: Iterable[Frame]) -> list[Encoded]:
    return [each for frame in source for each in aired.take(frame)]


def body(container: Container, aired: Programme, made: list[Encoded]) -> bytes:
    """What a listener gets that joins at the first of these frames."""
    first = head(container, aired.audio_format, SERIAL, "Town hall")
    return first + b"".join(each.audio for each in made)


def decode(data: bytes) -> tuple[Samples, int]:
    """Decode the first channel with FFmpeg. It raises at the first damage. Return samples and rate."""
    with av.open(io.BytesIO(data), "r") as file:
        (stream,) = file.streams.audio
        resampler = av.AudioResampler("s16p", "mono", 48_000)
        parts = []
        for frame in file.decode(stream):
            parts += [each.to_ndarray()[0] for each in resampler.resample(frame)]
        return np.concatenate(parts) / 32768, stream.rate


def loudest(samples: Samples) -> float:
    """The frequency of a tone, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * 48_000 / len(samples))


@pytest.mark.parametrize("container", Container)
@pytest.mark.parametrize("source", [MONO, STEREO, AudioFormat(rate=8_000), AudioFormat(rate=48_000, channels=2)])
def test_every_source_is_heard_in_every_container(container: Container, source: AudioFormat) -> None:
    aired = open_programme(container, source, SERIAL, SETTINGS)
    made = air(aired, frames(source, 3.0))
    assert [each.seq for each in made] == list(range(len(made)))
    assert all(each.media_time + each.ticks == after.media_time for each, after in pairwise(made))
    assert made == sorted(made, key=lambda each: each.due)
    samples, rate = decode(body(container, aired, made))
    assert len(samples) == pytest.approx(3.0 * 48_000, abs=HELD_SECONDS * 48_000)
    assert loudest(samples[24_000:120_000]) == pytest.approx(HZ, abs=2)
    assert np.abs(samples[24_000:120_000]).max() == pytest.approx(0.5, abs=0.1)
    assert rate == (source.rate if container is Container.WAV else 48_000)


@pytest.mark.parametrize("container", Container)
def test_a_source_that_sends_opus_is_heard_in_every_container(container: Container) -> None:
    source = AudioFormat(Codec.OPUS, 48_000)
    aired = open_programme(container, source, SERIAL, SETTINGS)
    sent = list(opus_frames(3.0))
    made = air(aired, sent)
    samples, _ = decode(body(container, aired, made))
    assert loudest(samples[24_000:120_000]) == pytest.approx(HZ, abs=2)
    if container is Container.OGG:
        passed = [packet for page in read(made) for packet in page.packets]
        assert passed == [frame.audio for frame in sent][: len(passed)]


@pytest.mark.parametrize("container", Container)
def test_a_programme_keeps_its_format_when_the_source_changes_its_own(container: Container) -> None:
    aired = open_programme(container, MONO, SERIAL, SETTINGS)
    made = air(aired, frames(MONO, 2.0, 600))
    for source, frequency in ((STEREO, 1000), (AudioFormat(Codec.OPUS, 48_000), HZ), (MONO, 1400)):
        made += aired.finish()
        aired.begin_source(source)
        opus = source.codec is Codec.OPUS
        made += air(aired, opus_frames(2.0) if opus else frames(source, 2.0, frequency))
    samples, _ = decode(body(container, aired, made))
    found = [loudest(samples[start : start + 48_000]) for start in range(24_000, 8 * 48_000 - 24_000, 96_000)]
    assert found == pytest.approx([600, 1000, HZ, 1400], abs=2)


@pytest.mark.parametrize("container", Container)
@pytest.mark.parametrize("first", [None, MONO])
def test_silence_lasts_as_long_as_there_is_no_source(container: Container, first: AudioFormat | None) -> None:
    aired = open_programme(container, first, SERIAL, SETTINGS)
    made = [each for step in range(100) for each in aired.rest(0.333, step * 0.333)]
    ticks = sum(each.ticks for each in made)
    assert ticks / aired.audio_format.clock_rate == pytest.approx(33.3, abs=HELD_SECONDS)
    aired.begin_source(STEREO)
    made += air(aired, frames(STEREO, 2.0))
    samples, _ = decode(body(container, aired, made))
    assert np.abs(samples[4800 : 33 * 48_000]).max() < 0.001
    assert loudest(samples[34 * 48_000 :]) == pytest.approx(HZ, abs=2)


@pytest.mark.parametrize("container", Container)
def test_a_listener_may_join_anywhere_and_miss_any_frames(container: Container) -> None:
    aired = open_programme(container, MONO, SERIAL, SETTINGS)
    made = air(aired, frames(MONO, 6.0))[13:]
    kept = made[:10] + made[20:]
    samples, _ = decode(body(container, aired, kept))
    lost = sum(each.ticks for each in made[10:20]) / aired.audio_format.clock_rate
    whole = sum(each.ticks for each in made) / aired.audio_format.clock_rate
    assert len(samples) / 48_000 == pytest.approx(whole - lost, abs=HELD_SECONDS)
    assert loudest(samples[-96_000:]) == pytest.approx(HZ, abs=2)


def read(made: list[Encoded]) -> list[Page]:
    reader = PageReader(io.BytesIO(b"".join(each.audio for each in made)))
    pages = list(reader)
    assert not reader.damaged
    return pages


def test_each_frame_of_ogg_is_one_page_and_pages_are_numbered_without_a_hole() -> None:
    aired = open_programme(Container.OGG, MONO, SERIAL, SETTINGS)
    made = air(aired, frames(MONO, 2.0)) + list(aired.finish()) + list(aired.rest(0.5, 2.0)) + list(aired.end(2.5))
    pages = read(made)
    assert len(pages) == len(made)
    assert [page.number for page in pages] == [each.seq + 2 for each in made]
    assert {page.serial for page in pages} == {SERIAL}
    granule = 0
    for page in pages:
        granule += sum(map(opus_packet.measure, page.packets))
        assert page.granule == granule
    assert [len(page.packets) for page in pages[:20]] == [5] * 20
    assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]
    late = list(PageReader(io.BytesIO(head(Container.OGG, aired.audio_format, SERIAL, "Town hall"))))
    assert [(page.number, page.is_first) for page in late] == [(0, True), (1, False)]
    assert b"TITLE=Town hall" in late[1].packets[0]


def test_a_page_holds_the_longest_packets_that_there_are() -> None:
    source = AudioFormat(Codec.OPUS, 48_000)
    aired = open_programme(Container.OGG, source, SERIAL, SETTINGS)
    longest = b"\xfb\xc1" + b"\xff" * 238 + b"\x00" + bytes(254 * 238)
    assert opus_packet.measure(longest) == 960
    sent = [
        Frame(
            longest, 0.0, FLICKS_PER_SECOND // 50, start=Place(at, 1, at, 0), end=Place(at + 1, 1, at + 1, 0), wire=b""
        )
        for at in range(10)
    ]
    made = air(aired, sent) + list(aired.finish())
    assert [len(page.packets) for page in read(made)] == [1] * 10
    assert len(made) == 10


def test_what_is_missing_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise UserError("Opus needs libopus.")

    monkeypatch.setattr(programme, "load_libopus", missing)
    with pytest.raises(UserError, match="Opus needs libopus"):
        check_container(Container.OGG, SETTINGS)
    monkeypatch.setitem(__import__("sys").modules, "lameenc", None)
    with pytest.raises(UserError, match="MP3 needs LAME: pip install"):
        check_container(Container.MP3, SETTINGS)
    check_container(Container.WAV, SETTINGS)
    assert libopus.load_libopus() is not None
