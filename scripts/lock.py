"""Write requirements/*.lock: the newest versions that pyproject.toml allows, each with the hashes of its files.

    python scripts/lock.py

The locks name no index, so they install from the one that pip is configured with. A package in two locks has the same
version in both. Needs uv.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Written by `make lock` from pyproject.toml: {content}.\n"
BUILDS_DEPENDENCIES = ("setuptools>=68",)
"""What builds a dependency that has no wheel: nkeys."""

COMPILE = (
    *(sys.executable, "-m", "uv", "--quiet", "pip", "compile", "--upgrade", "--universal", "--generate-hashes"),
    *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
)


def compile_lock(name: str, content: str, *options: str, requirements: str = "") -> None:
    """Write one lock file.

    Args:
        name: The file's name, without folder and suffix.
        content: A description of the lock, for its first line.
        options: Options of `uv pip compile`: sources, extras, constraints. The source `-` is `requirements`.
        requirements: Further requirements, one per line.
    """
    finished = subprocess.run(
        [*COMPILE, *options], check=False, cwd=ROOT, input=requirements, stdout=subprocess.PIPE, text=True
    )
    if finished.returncode:
        sys.exit(f"requirements/{name}.lock was not written: uv ended with exit code {finished.returncode}")
    path = ROOT / "requirements" / f"{name}.lock"
    path.write_text(HEADER.format(content=content) + finished.stdout)


def main() -> None:
    """Write all locks. The largest comes first and constrains the others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    oldest_python = project["project"]["requires-python"].removeprefix(">=")
    build = "\n".join([*project["build-system"]["requires"], *BUILDS_DEPENDENCIES])
    python = ("--python-version", oldest_python)
    test = ("--constraint", "requirements/test.lock")
    compile_lock("test", "the project with its test extra", "--extra", "test", "pyproject.toml", *python)
    compile_lock("media", "the project with its media extra", "--extra", "media", "pyproject.toml", *test, *python)
    container = "the project with its extras mp3 and cluster, for the container"
    compile_lock("runtime", container, "--extra", "mp3", "--extra", "cluster", "pyproject.toml", *test, *python)
    compile_lock("build", "what builds the project and nkeys", "-", *test, *python, requirements=build)
    compile_lock("sbom", "what makes the bill of materials", "--group", "sbom", *python)
    compile_lock("audit", "what asks for known vulnerabilities", "--group", "audit", *python)


if __name__ == "__main__":
    main()
