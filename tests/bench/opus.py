"""Opus without any server: what encoding a channel costs, and how speech sounds afterwards.

Quality is the MOS of ITU-T P.862.2 (wideband PESQ), which compares what comes out of the decoder with what went into
the encoder. The greatest value is 4.64. It was made for telephony, and judges speech at 16 kHz.
"""

import importlib
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from relay.media.libopus import OpusDecoder
from relay.media.opus_grid import LOOK_AHEAD
from relay.media.transcoding import Encoded, OpusEncoding, PcmToOpus
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.errors import UserError
from relay.vocabulary.opus_packet import CLOCK_RATE
from tests.support.signals import SHIPPED_VOICE, Samples, read_wav, resample, to_frames, to_pcm

SOURCE = AudioFormat(rate=16_000)
BITRATES = (16_000, 24_000, 32_000)
COMPLEXITIES = (5, 9, 10)
PESQ = "pesq==0.0.4"

FABLES = {
    "de+f2": "Einst stritten sich Nordwind und Sonne, wer von ihnen beiden wohl der Stärkere wäre. Da kam ein "
    "Wanderer, der in einen warmen Mantel gehüllt war, des Weges daher.",
    "fr+m3": "La bise et le soleil se disputaient, chacun assurant qu'il était le plus fort, quand ils ont vu un "
    "voyageur qui s'avançait, enveloppé dans son manteau.",
}
"""A voice of eSpeak NG, and what it says: the fable of the north wind and the sun, which phoneticians use."""


@dataclass(frozen=True)
class Heard:
    """How a voice sounds after it was encoded and decoded.

    Attributes:
        mos: From 1 to 4.64.
        kilobits: Kilobits per second that were used.
    """

    mos: float
    kilobits: float


def voices() -> Mapping[str, Samples]:
    """Return the voices at 16 kHz, by name.

    Raises:
        UserError: eSpeak NG is missing.
    """
    if shutil.which("espeak-ng") is None:
        raise UserError("The other voices need eSpeak NG: apt-get install espeak-ng")
    spoken = {"the shipped voice": SHIPPED_VOICE.read_bytes()}
    for voice, text in FABLES.items():
        said = subprocess.run(["espeak-ng", "-v", voice, "--stdout", text], check=True, capture_output=True)
        spoken[f"eSpeak NG, {voice}"] = said.stdout
    return {name: resample(*read_wav(data), SOURCE.rate) for name, data in spoken.items()}


def encode(voice: Samples, encoding: OpusEncoding) -> list[Encoded]:
    """Encode a voice as a channel does whose broadcaster sends 20 ms at a time."""
    transcoder = PcmToOpus(SOURCE, encoding)
    frames = to_frames(to_pcm(voice), SOURCE, range(0, len(voice), SOURCE.rate // 50))
    return [each for frame in frames for each in transcoder.take(frame)] + transcoder.finish()


def measure_quality(voice: Samples, encoding: OpusEncoding) -> Heard:
    """Encode, decode and judge.

    Raises:
        UserError: The package that judges is missing.
    """
    try:
        pesq = importlib.import_module("pesq").pesq
    except ImportError as error:
        raise UserError(f"The judge of quality is not installed: pip install {PESQ}") from error
    packets = encode(voice, encoding)
    decoder = OpusDecoder(SOURCE.rate, SOURCE.channels)
    samples = encoding.frame_ms * SOURCE.rate // 1000
    decoded = b"".join(decoder.decode(packet.audio, samples) for packet in packets)
    heard = np.frombuffer(decoded, "<i2").astype(np.float64)[LOOK_AHEAD * SOURCE.rate // CLOCK_RATE :]
    bits = 8 * sum(len(packet.audio) for packet in packets)
    return Heard(pesq(SOURCE.rate, voice, heard[: len(voice)], "wb"), bits * SOURCE.rate / len(voice) / 1000)


def measure_cost(voice: Samples, complexity: int) -> float:
    """Return the share of a core that one channel of 16 kHz needs, everything in the transcoder included."""
    began = time.thread_time()
    encode(voice, OpusEncoding(complexity=complexity))
    return (time.thread_time() - began) * SOURCE.rate / len(voice)
