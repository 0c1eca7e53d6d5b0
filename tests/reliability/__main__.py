"""Run every test that proves a promise or meets a threat, and write what came of it into docs/reliability.md.

python -m tests.reliability [--load reference]
"""

import argparse
import datetime as dt
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.reliability.loads import LOADS
from tests.reliability.promises import PROMISES, THREATS
from tests.reliability.table import BEGIN, END, PAGE, ROOT, read_outcomes, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--load", choices=list(LOADS), default="ci")
    options = parser.parse_args()
    nodes = sorted({node for row in (*PROMISES, *THREATS) for node in row.tests})
    # One that is named with its file would run twice.
    nodes = [node for node in nodes if node.split("::")[0] not in nodes or "::" not in node]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            "-m",
            "pytest",
            "-q",
            f"--load={options.load}",
            f"--junitxml={report}",
            "-o",
            "junit_family=xunit1",
            *nodes,
        ]
        code = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
        outcomes = read_outcomes(report, (*PROMISES, *THREATS))
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    now = dt.datetime.now(dt.UTC)
    made = (
        f"Made by `python -m tests.reliability --load {options.load}` on {now:%Y-%m-%d %H:%M} UTC, on a machine with "
        f"{os.cpu_count()} CPUs."
    )
    promises = table(("promise", "which means"), PROMISES, outcomes)
    threats = table(("threat", "defence"), THREATS, outcomes)
    PAGE.write_text(
        f"{before}{BEGIN}\n\n{made}\n\n## Promises\n\n{promises}\n\n## Threats\n\n{threats}\n\n{END}{after}",
        encoding="utf-8",
    )
    print(f"{PAGE.relative_to(ROOT)} is written")
    return code


if __name__ == "__main__":
    sys.exit(main())
