"""The reference pages that are made from the code are what the code says."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import reference

ROOT = Path(__file__).parents[2]


def test_the_reference_is_what_the_code_says() -> None:
    checked = subprocess.run(
        [sys.executable, "scripts/reference.py", "--check"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_a_page_that_is_stale_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {path: f"{text}new" for path, text in reference.pages().items()}
    monkeypatch.setattr(reference, "pages", lambda: changed)
    monkeypatch.setattr(sys, "argv", ["reference.py", "--check"])
    with pytest.raises(SystemExit, match=r"config/relay\.toml, docs/configuration\.md, docs/cli\.md: not what"):
        reference.main()
