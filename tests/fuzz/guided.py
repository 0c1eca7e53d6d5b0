"""One target under atheris: `python -m tests.fuzz.guided TARGET [LIBFUZZER OPTION ...] [CORPUS]`."""

import importlib
import sys
from typing import Any


def main() -> None:
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("atheris is missing: pip install 'atheris>=3,<4'")
    with atheris.instrument_imports(include=["relay"]):
        targets = importlib.import_module("tests.fuzz.targets")
    target = targets.TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
