"""Make the virtual environment hold exactly the locked packages, and the project itself, editable.

    python scripts/environment.py DIRECTORY {media,test}

It does nothing if that is already so: a stamp in the environment has the fingerprint of everything behind it. It needs
only Python and pip. Where Debian has split `ensurepip` off, it uses the pip outside the environment.
"""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SATISFIED_BY = {"media": ("media", "test"), "test": ("test",)}
"""The extras whose environments satisfy an extra: the test extra includes the media extra."""


def lock_files(extra: str) -> list[Path]:
    """Return the locks to install, in order. The build tools come first, so that a build downloads nothing unpinned."""
    return [ROOT / "requirements" / f"{name}.lock" for name in ("build", extra)]


def fingerprint(environment: Path, extra: str) -> str:
    """Return a digest of everything behind the environment: interpreter, path, locks and metadata."""
    digest = hashlib.sha256(f"{sys.version}\n{environment}\n{extra}\n".encode())
    for path in (*lock_files(extra), ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_current(environment: Path, extra: str) -> bool:
    """Whether the environment exists, runs, and matches the current tree."""
    try:
        stamp = (environment / "stamp").read_text()
        runs = subprocess.run([interpreter(environment), "-c", ""], check=False, capture_output=True).returncode == 0
    except OSError:
        return False
    return runs and stamp in {fingerprint(environment, name) for name in SATISFIED_BY[extra]}


def create(environment: Path) -> None:
    """Create the environment anew, with pip, so that nothing stays that the locks no longer name.

    Raises:
        SystemExit: No pip is available. The message says what to install.
    """
    if importlib.util.find_spec("ensurepip"):
        run(sys.executable, "-m", "venv", "--clear", str(environment))
    elif importlib.util.find_spec("pip"):
        run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment))
        run(sys.executable, "-m", "pip", "--python", interpreter(environment), "-qq", "install", "pip")
    else:
        sys.exit(f"{sys.executable} has neither ensurepip nor pip; on Debian: apt-get install python3-venv")


def install(environment: Path, extra: str) -> None:
    """Install the locked packages, each checked against its hash, and then the project.

    A lock is complete, so pip must not look for dependencies. For one with an extra (`coverage[toml]`) it would choose
    the newest version, and reject it because the lock has another.

    Raises:
        SystemExit: pip failed, or the project needs something that the locks do not have.
    """
    pip = [interpreter(environment), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    packages = ("-qq", "install", "--no-deps", "--no-build-isolation")
    for lock in lock_files(extra):
        run(*pip, *packages, "--require-hashes", "-r", str(lock))
    run(*pip, *packages, "--editable", str(ROOT))
    check = subprocess.run([*pip, "check"], check=False, capture_output=True, text=True)
    if check.returncode:
        sys.exit(f"{check.stdout}requirements/*.lock and pyproject.toml disagree; `make lock` brings them together.")


def interpreter(environment: Path) -> str:
    """Return the path of the environment's Python."""
    return str(environment / "bin" / "python")


def run(*command: str) -> None:
    """Run a command. If it fails, end with its exit code: it has printed the reason."""
    finished = subprocess.run(command, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


def main() -> None:
    """Update the environment that the command line names."""
    environment, extra = Path(sys.argv[1]).absolute(), sys.argv[2]
    if is_current(environment, extra):
        return
    print(f"Installing into {environment.name} (about a minute) ...", flush=True)
    create(environment)
    install(environment, extra)
    (environment / "stamp").write_text(fingerprint(environment, extra))


if __name__ == "__main__":
    main()
