"""Write the bill of materials of the container: each package with its version, license and requirements.

    python scripts/sbom.py DIRECTORY FILE

The packages are installed from their lock into an environment in DIRECTORY, since only an installed package reveals its
license. The tool, CycloneDX's own, gets another environment. The file names no package index and no path of this
machine.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def make_environment(directory: Path, lock: str) -> Path:
    """Create an environment with exactly the packages of a lock, and return its folder of programs."""
    run(sys.executable, "-m", "venv", "--clear", str(directory))
    programs = directory / "bin"
    pip = (str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "-qq")
    run(*pip, "install", "--no-deps", "--require-hashes", "-r", str(ROOT / "requirements" / f"{lock}.lock"))
    return programs


def run(*command: str) -> None:
    """Run a command. If it fails, end with its exit code: it has printed the reason."""
    finished = subprocess.run(command, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


def main() -> None:
    """Write the file that the command line names."""
    directory, output = Path(sys.argv[1]).absolute(), Path(sys.argv[2])
    shipped = make_environment(directory / "shipped", "runtime")
    run(str(shipped / "python"), "-m", "pip", "-qq", "uninstall", "--yes", "setuptools", "pip")
    tools = make_environment(directory / "tools", "sbom")
    output.parent.mkdir(parents=True, exist_ok=True)
    run(
        *(str(tools / "cyclonedx-py"), "environment", "--pyproject", str(ROOT / "pyproject.toml")),
        *("--output-reproducible", "--output-file", str(output), str(shipped / "python")),
    )
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
