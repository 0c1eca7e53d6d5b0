import pytest

from relay.media.lost_time import LostTime
from relay.vocabulary.audio import SAMPLE_RATES, AudioFormat, Codec

OPUS = AudioFormat(Codec.OPUS, 48_000, 2)


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_many_losses_together_are_as_long_as_their_sum(rate: int) -> None:
    lost, audio_format = LostTime(), AudioFormat(rate=rate, channels=2)
    pieces = [piece for _ in range(1000) for piece in lost.silence(0.0213, audio_format)]
    assert {byte for piece in pieces for byte in piece} == {0}
    assert sum(map(len, pieces)) / audio_format.bytes_per_second == pytest.approx(21.3, abs=1.5 / rate)


def test_opus_is_silent_in_packets_of_any_length() -> None:
    lost = LostTime()
    pieces = [piece for seconds in (0.001, 0.001, 0.498) for piece in lost.silence(seconds, OPUS)]
    measured = [OPUS.measure(piece) for piece in pieces]
    assert sum(piece.ticks for piece in measured) == 24_000
    assert [piece.seconds for piece in measured] == [0.1] * 5
    assert pieces[0][0] & 0b100, "stereo"


@pytest.mark.parametrize("milliseconds", [60, 300])
@pytest.mark.parametrize("audio_format", [OPUS, AudioFormat()])
def test_a_loss_of_whole_frames_leaves_nothing_over(audio_format: AudioFormat, milliseconds: int) -> None:
    lost = LostTime()
    for _ in range(500):
        pieces = lost.silence(milliseconds / 1000, audio_format)
        assert (
            sum(audio_format.measure(piece).ticks for piece in pieces) == audio_format.clock_rate * milliseconds // 1000
        )
