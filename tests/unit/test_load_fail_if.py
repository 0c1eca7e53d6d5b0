import pytest

from relay.loadtest.fail_if import parse_condition
from relay.vocabulary.errors import UserError


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("p99_ms>200", 201, True),
        ("p99_ms>200", 200, False),
        ("p99_ms >= 200", 200, True),
        (" loss_percent<0.5 ", 0.4, True),
        ("gaps!=0", 0, False),
        ("joins==100", 100, True),
        ("max_ms<=-1", 0, False),
        ("p99_ms>200", None, True),
    ],
)
def test_a_condition_compares_a_metric(text: str, value: float | None, holds: bool) -> None:
    condition = parse_condition(text)
    assert condition.holds({condition.metric: value}) is holds


@pytest.mark.parametrize(
    "text", ["", "p99_ms", "p99_ms>", ">200", "p99_ms=200", "p99_ms>2e3", "p99_ms>1 or 1>0", "1<2"]
)
def test_nothing_else_is_a_condition(text: str) -> None:
    with pytest.raises(UserError, match=r"is not a metric, one of .* and a number, such as 'p99_ms>200'|not measured"):
        parse_condition(text)


@pytest.mark.parametrize(("metric", "nearest"), [("p99", "p99_ms"), ("join_failure", "join_failures")])
def test_an_unknown_metric_names_the_nearest(metric: str, nearest: str) -> None:
    with pytest.raises(UserError, match=rf"{metric} is not measured; the nearest is {nearest}\. All are: p50_ms, "):
        parse_condition(f"{metric}>1")


def test_it_is_shown_as_it_is_written() -> None:
    assert str(parse_condition("p99_ms > 200.50")) == "p99_ms>200.5"
