"""Run the tests that prove a promise or meet a threat, and write what came of them into docs/reliability.md.

python -m tests.reliability [--load reference] [ROW ...]

A row is a number of a promise, or a name; without one, all are run. The others keep what the page says of them.
"""

import argparse
import datetime as dt
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.reliability.loads import BOUNDS, LOADS
from tests.reliability.promises import PROMISES, THREATS, Row
from tests.reliability.table import BEGIN, END, PAGE, ROOT, Outcome, chosen, read_cells, read_outcomes, table


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.reliability", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--load", choices=list(LOADS), default="ci")
    parser.add_argument("rows", nargs="*", metavar="ROW")
    options = parser.parse_args()
    try:
        rows = chosen((*PROMISES, *THREATS), options.rows)
    except ValueError as error:
        parser.error(str(error))
    code, outcomes = run(rows, options.load)
    made = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, load {options.load}"
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    written, _, after = rest.partition(END)
    results = read_cells(written) | {name: outcome.told(made) for name, outcome in outcomes.items()}
    promises = table(("promise", "which means"), PROMISES, results)
    threats = table(("threat", "defence"), THREATS, results)
    PAGE.write_text(
        f"{before}{BEGIN}\n\n## Promises\n\n{promises}\n\n## Threats\n\n{threats}\n\n{END}{after}", encoding="utf-8"
    )
    print(f"{PAGE.relative_to(ROOT)} is written")
    return code


def run(rows: Sequence[Row], load: str) -> tuple[int, dict[str, Outcome]]:
    """Run the tests of rows; return the exit code, and the outcome of each row by its name."""
    nodes = sorted({node for row in rows for node in row.tests})
    # A test that is named together with its file would run twice.
    nodes = [node for node in nodes if node.split("::")[0] not in nodes or "::" not in node]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # Under load, a test may exceed the usual time limit for hanging tests.
        seconds = 240 + 2 * BOUNDS * LOADS[load].bound_seconds
        settings = ("-o", "junit_family=xunit1", "-o", f"faulthandler_timeout={seconds:.0f}")
        options = ("-q", f"--load={load}", f"--junitxml={report}", *settings)
        command = [sys.executable, "-m", "pytest", *options, *nodes]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        return code, read_outcomes(report, rows)


if __name__ == "__main__":
    sys.exit(main())
