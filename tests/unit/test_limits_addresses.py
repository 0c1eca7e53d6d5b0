"""The client's address behind proxies. Only what a trusted proxy saw counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.limits.addresses import Client, TrustedProxies, read_address

TRUSTED = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "address", "group"),
    [
        ("192.0.2.1", [], "192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", ["198.51.100.7"], "198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", ["6.6.6.6, 198.51.100.7"], "198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", ["6.6.6.6", "198.51.100.7, 10.1.2.3"], "198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", ["10.9.9.9"], "10.9.9.9", None),
        ("127.0.0.1", [], "127.0.0.1", None),
        ("127.0.0.1", ["nonsense"], "127.0.0.1", None),
        ("127.0.0.1", ["198.51.100.7, unknown, 10.1.2.3"], "10.1.2.3", None),
        ("127.0.0.1", ["198.51.100.7:4711"], "198.51.100.7", "198.51.100.7"),
        ("fd00::1", ["[2001:db8:1:2:3::4]:4711"], "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:127.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:ffff::1", [], "2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", [], "fe80::1", "fe80::/64"),
        ("", ["198.51.100.7"], "", None),
    ],
)
def test_the_rightmost_hop_that_is_not_trusted(
    peer: str, forwarded: list[str], address: str, group: str | None
) -> None:
    assert TRUSTED.find_client(peer, forwarded) == Client(address, group)


@given(st.lists(st.text(max_size=60), max_size=4))
def test_nothing_that_an_untrusted_peer_writes_matters(forwarded: list[str]) -> None:
    assert TRUSTED.find_client("192.0.2.1", forwarded) == Client("192.0.2.1", "192.0.2.1")


@given(st.lists(st.text(max_size=60), max_size=4))
def test_nothing_that_stands_before_the_client_matters(forwarded: list[str]) -> None:
    assert TRUSTED.find_client("127.0.0.1", [*forwarded, "198.51.100.7"]) == Client("198.51.100.7", "198.51.100.7")


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_none(text: str) -> None:
    read_address(text)


@pytest.mark.parametrize(
    ("trusted", "peer", "client"),
    [
        (["loopback"], "127.0.0.1", Client("198.51.100.7", "198.51.100.7", "127.0.0.1")),
        (["loopback"], "::1", Client("198.51.100.7", "198.51.100.7", "::1")),
        (["loopback", "127.0.0.1"], "127.0.0.1", Client("198.51.100.7", "198.51.100.7")),
        (["loopback"], "127.0.0.2", Client("127.0.0.2", "127.0.0.2")),
        (["127.0.0.1"], "127.0.0.1", Client("198.51.100.7", "198.51.100.7")),
        ([], "127.0.0.1", Client("127.0.0.1", "127.0.0.1")),
    ],
)
def test_who_is_trusted_unnamed_answers_for_what_it_brings(trusted: list[str], peer: str, client: Client) -> None:
    assert TrustedProxies(trusted).find_client(peer, ["198.51.100.7"]) == client


def test_a_network_that_is_none() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        TrustedProxies(["10.0.0.0/99"])
