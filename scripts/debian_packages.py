"""Install missing Debian packages, or print what to install.

    python scripts/debian_packages.py PACKAGE=WHAT ...

The package is missing if WHAT is: a command, or a shared library such as libatomic.so.1. So a machine that has it from
elsewhere is left unchanged.
"""

import ctypes
import os
import shutil
import subprocess
import sys


def is_there(what: str) -> bool:
    """Whether this machine has a command, or a shared library if the name contains `.so.`."""
    if ".so." not in what:
        return shutil.which(what) is not None
    try:
        ctypes.CDLL(what)
    except OSError:
        return False
    return True


def main() -> None:
    """Install what is missing if this is root and there is apt-get."""
    wanted = (argument.split("=") for argument in sys.argv[1:])
    missing = [package for package, what in wanted if not is_there(what)]
    if not missing:
        return
    install = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"The tests need {' and '.join(missing)}. On Debian, as root: apt-get install {' '.join(missing)}")
    print(f"Installing from Debian: {' '.join(missing)} ...", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "--quiet=2"], install):
        finished = subprocess.run(
            command, check=False, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if finished.returncode:
            sys.exit(f"{finished.stdout}{' '.join(command)} ended with exit code {finished.returncode}")


if __name__ == "__main__":
    main()
