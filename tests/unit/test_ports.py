"""Rules for the ports of all tests; see tests/support/ports.py."""

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE

from tests.support.ports import BLOCKS, FIRST_PORT, PORTS_PER_BLOCK, free_port

TESTS = Path(__file__).parent.parent
FROM_THE_KERNEL = re.compile(r'(\.0\.0\.1"|"localhost"), 0\b|"--port", "0"|--port 0\b|port"?[=:] ?0\b')
"""Matches every form in which a test can ask the kernel for a port to listen on."""


def test_no_port_is_given_twice() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == len(ports)


def test_processes_have_ports_of_their_own() -> None:
    program = "from tests.support.ports import free_port as f; print(*(f() for _ in range(300)), flush=True); input()"
    # A process that ends frees its blocks, so all live until each has its ports.
    with ExitStack() as stack:
        others = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", program], stdin=PIPE, stdout=PIPE, text=True))
            for _ in range(3)
        ]
        ports = [free_port() for _ in range(300)]
        for other in others:
            assert other.stdout is not None
            ports += map(int, other.stdout.readline().split())
        for other in others:
            other.communicate("\n")
    assert len(set(ports)) == len(ports) == 1200


def test_ports_are_outside_of_the_kernels_range() -> None:
    lowest, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert lowest >= FIRST_PORT + PORTS_PER_BLOCK * BLOCKS


def test_no_test_takes_a_port_from_the_kernel() -> None:
    asked = [
        f"{path.relative_to(TESTS)}:{number}"
        for path in sorted(TESTS.rglob("*.py"))
        if "node_modules" not in path.parts and path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if FROM_THE_KERNEL.search(line)
    ]
    assert not asked, "take them from tests.support.ports.free_port"
