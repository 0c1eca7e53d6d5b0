import subprocess
import sys

SLOW = ("asyncio", "click", "logging", "pydantic", "rich", "websockets")
"""Modules that take 0.1 s or more to import. Every receiving process would pay for that."""


def test_a_receiving_process_imports_nothing_that_is_slow() -> None:
    code = f"import sys; import relay.loadtest.worker; print(*sorted(set({SLOW}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
