"""No node reports an older state of a record after a newer one, in whatever order it learns of them."""

import random

import pytest

from relay.cluster.record_mirror import Change, RecordMirror


def change(key: str, revision: int, value: bytes | None = b"") -> Change:
    return Change(key, revision, value)


def test_news_that_is_old_is_none() -> None:
    mirror = RecordMirror()
    assert mirror.take(change("a", 2))
    assert not mirror.take(change("a", 2))
    assert not mirror.take(change("a", 1))
    assert mirror.take(change("b", 1))


def test_what_was_read_is_not_news_again() -> None:
    mirror = RecordMirror()
    assert mirror.take(change("a", 2))
    assert mirror.read_on([change("b", 1), change("a", 2), change("c", 3)]) == [change("b", 1), change("c", 3)]
    assert not mirror.take(change("c", 3))
    assert mirror.read_until == 3


def test_a_late_message_does_not_revive_a_deleted_record() -> None:
    mirror = RecordMirror()
    mirror.take(change("a", 1))
    mirror.take(change("a", 2, None))
    mirror.read_on([change("a", 2, None)])
    assert not mirror.take(change("a", 1))
    assert mirror.take(change("a", 3))


def test_reading_anew_reports_all_and_names_what_is_missing() -> None:
    mirror = RecordMirror()
    mirror.read_on([change("a", 1), change("b", 2)])
    known, missing = mirror.read_anew([change("b", 2), change("c", 3)], has_same_revisions=True)
    assert (known, missing) == ([change("b", 2), change("c", 3)], ["a"])


def test_news_that_overtook_the_reading_stays() -> None:
    mirror = RecordMirror()
    mirror.take(change("a", 5))
    known, missing = mirror.read_anew([change("a", 3), change("b", 4)], has_same_revisions=True)
    assert sorted(known, key=lambda each: each.key) == [change("a", 5), change("b", 4)]
    assert missing == []


def test_revisions_begin_anew_with_the_memory() -> None:
    mirror = RecordMirror()
    mirror.read_on([change("a", 50), change("b", 51)])
    known, missing = mirror.read_anew([change("a", 1)], has_same_revisions=False)
    assert (known, missing) == ([change("a", 1)], ["b"])
    assert mirror.take(change("a", 2))


@pytest.mark.parametrize("seed", range(50))
def test_the_last_report_of_each_record_is_its_state(seed: int) -> None:
    """News come late, twice or never. Reading comes between."""
    dice = random.Random(seed)  # noqa: S311 - repeatable
    mirror, bucket, reported, late = RecordMirror(), dict[str, Change](), dict[str, Change](), list[Change]()

    def report(changes: list[Change]) -> None:
        for each in changes:
            before = reported.get(each.key)
            assert before is None or before.revision <= each.revision
            reported[each.key] = each

    for revision in range(1, 60):
        now = change(dice.choice("abc"), revision, dice.choice([b"", None]))
        bucket[now.key] = now
        late += dice.choice([[], [now], [now, now]])
        dice.shuffle(late)
        while late and dice.random() < 0.5:
            each = late.pop()
            if mirror.take(each):
                report([each])
        if dice.random() < 0.2:
            stored = sorted(bucket.values(), key=lambda each: each.revision)
            report(mirror.read_on([each for each in stored if each.revision > mirror.read_until]))
            assert reported == bucket
