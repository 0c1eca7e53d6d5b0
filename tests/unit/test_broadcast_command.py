"""What `relay broadcast` rejects before it connects."""

import wave
from pathlib import Path

import pytest
from click.testing import CliRunner

from relay.cli.broadcast import broadcast_command
from relay.vocabulary.errors import UserError


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--name", "", "--name must be text that people can read, but '' has nothing visible."),
        (
            "--session-name",
            "",
            "--session-name must be text that people can read, but '' has nothing visible.",
        ),
        ("--lang", "deutsch!", "--lang must be a BCP 47 tag such as de or pt-BR, not 'deutsch!'."),
    ],
)
def test_a_label_that_can_not_be_one_is_a_mistake_of_the_person(
    tmp_path: Path, option: str, value: str, sentence: str
) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(bytes(32))
    result = CliRunner().invoke(broadcast_command, ["ev1", str(path), option, value])
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == sentence
