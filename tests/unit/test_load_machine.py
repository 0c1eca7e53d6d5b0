import os
import resource

import pytest

from relay.loadtest.machine import (
    SPARE_FILES,
    check_ports,
    cpu_seconds,
    is_this_machine,
    raise_file_limit,
    waiting_seconds,
)
from relay.loadtest.server_probe import ServerProbe
from relay.vocabulary.errors import UserError


def test_more_connections_than_ports_are_told_with_what_to_do() -> None:
    check_ports(100)
    with pytest.raises(UserError, match=r"ports for connections to one address, but needs 100000: widen the range"):
        check_ports(100_000)


def test_a_soft_limit_that_is_too_low_is_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = SPARE_FILES + 200
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, before[1]))
        raise_file_limit(200)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == low
        raise_file_limit(201)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == low + 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("host", "here"), [("127.0.0.1", True), ("192.0.2.1", False), ("2001:db8::1", False)])
def test_which_addresses_are_of_this_machine(host: str, here: bool) -> None:
    assert is_this_machine(host) is here


def test_what_this_process_used_only_grows() -> None:
    before = cpu_seconds(), waiting_seconds()
    assert sum(range(200_000)) > 0
    assert cpu_seconds() > before[0]
    assert before[1] is not None
    assert (waiting_seconds() or 0.0) >= before[1]


def test_a_server_is_looked_at_and_may_go_away() -> None:
    probe = ServerProbe([os.getpid()])
    sample = probe.sample(with_uss=True)
    assert sample is not None
    assert sample.uss is not None
    assert 0 < sample.uss <= sample.rss
    assert f"(process {os.getpid()})" in probe.name
    assert probe.max_files == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert probe.sample(with_uss=False) is not None
