"""Invalid numbers on the command line."""

import pytest
from click.testing import CliRunner

from relay.cli.listen import listen_command
from relay.cli.loadtest import loadtest_command


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize("option", ["--duration", "--slow-percent", "--nap-ms"])
def test_a_load_test_takes_only_numbers(option: str, value: str) -> None:
    result = CliRunner().invoke(loadtest_command, [option, value])
    assert (result.exit_code, result.exception.__class__) == (2, SystemExit)
    assert f"Invalid value for '{option}'" in result.output


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_listening_ends_at_a_time_that_comes(value: str) -> None:
    result = CliRunner().invoke(listen_command, ["ev1", "-o", "none.wav", "--duration", value])
    assert result.exit_code == 2
    assert f"Invalid value for '--duration': {value} must be a finite number." in result.output
