"""What each session may have in the memory of the bus."""

from relay.cluster.shares import Shares


def test_the_nodes_divide_a_share() -> None:
    shares = Shares(max_bytes=600, max_seconds=80.0)
    assert [shares.generation_bytes(nodes) for nodes in (0, 1, 2, 5)] == [100, 100, 50, 20]


def test_accounts_go_when_the_memory_has_nothing_of_their_sessions() -> None:
    shares = Shares(max_bytes=600, max_seconds=80.0)
    old = shares.find("old", 0.0)
    shares.find("new", 50.0)
    shares.expire(80.0)
    assert len(shares) == 2
    assert shares.find("old", 80.0) is old
    shares.expire(140.0)
    assert len(shares) == 1
    assert shares.find("old", 140.0) is old
    shares.clear()
    assert len(shares) == 0
