"""Make the virtual environment hold exactly what the lock files say, and the project itself, editable.

    python scripts/environment.py DIRECTORY {media,test}

Does nothing when that is so already: a stamp in the environment has the fingerprint of everything it was made from.
Needs nothing but Python and pip; where Debian has split `ensurepip` off, the pip outside of the environment does.
"""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SATISFIED_BY = {"media": ("media", "test"), "test": ("test",)}
"""Which extras' environments have all that an extra needs: the test extra includes the media extra."""


def lock_files(extra: str) -> list[Path]:
    """Return the locks to install: the build tools' too, so that building the project downloads nothing unpinned."""
    return [ROOT / "requirements" / f"{name}.lock" for name in ("build", extra)]


def fingerprint(environment: Path, extra: str) -> str:
    """Return a digest of all that the environment is made from: interpreter, place, locks and metadata."""
    digest = hashlib.sha256(f"{sys.version}\n{environment}\n{extra}\n".encode())
    for path in (*lock_files(extra), ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_current(environment: Path, extra: str) -> bool:
    """Tell whether the environment is there, runs, and was made from what the tree says now."""
    try:
        stamp = (environment / "stamp").read_text()
        runs = subprocess.run([interpreter(environment), "-c", ""], check=False, capture_output=True).returncode == 0
    except OSError:
        return False
    return runs and stamp in {fingerprint(environment, name) for name in SATISFIED_BY[extra]}


def create(environment: Path) -> None:
    """Create the environment anew, with a pip in it, so that nothing stays that the locks no longer name.

    Raises:
        SystemExit: There is no pip to begin with; the message says what to install.
    """
    if importlib.util.find_spec("ensurepip"):
        run(sys.executable, "-m", "venv", "--clear", str(environment))
    elif importlib.util.find_spec("pip"):
        run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment))
        run(sys.executable, "-m", "pip", "--python", interpreter(environment), "-qq", "install", "pip")
    else:
        sys.exit(f"{sys.executable} has neither ensurepip nor pip; on Debian: apt-get install python3-venv")


def install(environment: Path, extra: str) -> None:
    """Install the locked packages, each checked against its hash, and the project on top of them.

    A lock is complete, so pip is not to look for dependencies: for one with an extra (`coverage[toml]`) it would take
    the newest version there is, and refuse it because the lock has another.

    Raises:
        SystemExit: pip failed, or the project asks for something that the locks do not have.
    """
    pip = [interpreter(environment), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    locks = [argument for path in lock_files(extra) for argument in ("-r", str(path))]
    run(*pip, "-qq", "install", "--no-deps", "--require-hashes", *locks)
    run(*pip, "-qq", "install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    check = subprocess.run([*pip, "check"], check=False, capture_output=True, text=True)
    if check.returncode:
        sys.exit(f"{check.stdout}requirements/*.lock and pyproject.toml disagree; `make lock` brings them together.")


def interpreter(environment: Path) -> str:
    """Return the path of the environment's Python."""
    return str(environment / "bin" / "python")


def run(*command: str) -> None:
    """Run a command, and end with its exit code if it fails: it has said why."""
    finished = subprocess.run(command, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


def main() -> None:
    """Bring the environment that the command line names up to date."""
    environment, extra = Path(sys.argv[1]).absolute(), sys.argv[2]
    if is_current(environment, extra):
        return
    print(f"Installing into {environment.name} (about a minute) ...", flush=True)
    create(environment)
    install(environment, extra)
    (environment / "stamp").write_text(fingerprint(environment, extra))


if __name__ == "__main__":
    main()
