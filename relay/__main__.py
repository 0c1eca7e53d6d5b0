"""The `relay` command, by its name and as `python -m relay`: signals first, since all that follows takes time."""

import importlib
import sys

from relay.process.early_signals import end_quietly, keep_signals


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:2] == ["serve"]:
        keep_signals()
    else:
        end_quietly()
    importlib.import_module("relay.cli.main").main()


if __name__ == "__main__":
    main()
