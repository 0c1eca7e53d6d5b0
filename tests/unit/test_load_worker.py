"""What a receiving process is made of."""

import subprocess
import sys

SLOW = ("asyncio", "click", "logging", "pydantic", "rich", "websockets")
"""What takes a tenth of a second or more to import, times the number of processes."""


def test_a_receiving_process_imports_nothing_that_is_slow() -> None:
    code = f"import sys; import relay.loadtest.worker; print(*sorted(set({SLOW}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
