"""The docstrings of public names render into the API reference that `make docs` writes."""

import re
import subprocess
import sys
from pathlib import Path

import relay
from relay import client
from tests.support.markdown import ROOT


def test_the_reference_has_every_public_name_and_no_warning(tmp_path: Path) -> None:
    (recipe,) = re.findall(r"^\t@\$\(RUN\) (pdoc .*) dist/api$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    command = [sys.executable, "-W", "error", "-m", *recipe.split(), str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    for page, names in (("relay.html", relay.__all__), ("relay/client.html", client.__all__)):
        text = (tmp_path / page).read_text()
        missing = [name for name in names if f'id="{name}"' not in text]
        assert missing == []
