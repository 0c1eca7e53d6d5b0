"""Verdicts about time; see tests/support/tries.py."""

import pytest

from tests.support.tries import TRIES, LateError, best_of_three, check_in_time


async def test_a_test_that_was_late_runs_again() -> None:
    tries = 0

    @best_of_three
    async def late_but_once() -> None:
        nonlocal tries
        tries += 1
        check_in_time(250 if tries < TRIES else 100, 200)

    await late_but_once()
    assert tries == TRIES


async def test_a_test_that_is_always_late_fails() -> None:
    @best_of_three
    async def always_late() -> None:
        raise ExceptionGroup("two relays", [LateError("first"), LateError("second")])

    with pytest.raises(ExceptionGroup):
        await always_late()


@pytest.mark.parametrize("wrong", [AssertionError(), ExceptionGroup("two", [LateError(), AssertionError()])])
async def test_any_other_failure_counts_at_once(wrong: Exception) -> None:
    tries = 0

    @best_of_three
    async def fails() -> None:
        nonlocal tries
        tries += 1
        raise wrong

    with pytest.raises(type(wrong)):
        await fails()
    assert tries == 1
