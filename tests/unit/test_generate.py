"""Generated files match the code."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import generate

REPOSITORY = Path(__file__).parents[2]


def test_what_is_generated_is_what_the_code_says() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "scripts.generate", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_files_that_are_stale_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    changed = {path: f"{text}new" for path, text in generate.files().items()}
    monkeypatch.setattr(generate, "files", lambda: changed)
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    with pytest.raises(SystemExit, match="True"):
        generate.main()
    named = {line.partition(" ")[0] for line in capsys.readouterr().out.splitlines()}
    assert named == {str(path.relative_to(REPOSITORY)) for path in changed}
    assert {"config/relay.toml", "docs/cli.md", "docs/metrics.md", "relay/pages/openapi.json"} <= named
