"""Conditions under which a load test fails, such as `p99_ms>200`: a metric, a comparison and a number, no more."""

import difflib
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from relay.loadtest.metrics import METRICS
from relay.vocabulary.errors import UserError

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(
    r"\s*(?P<metric>\w+)\s*(?P<comparison>>=|<=|==|!=|>|<)\s*(?P<number>-?[0-9]+(\.[0-9]+)?)\s*", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition.

    Attributes:
        metric: A name of `METRICS`.
        comparison: `>`, `>=`, `<`, `<=`, `==` or `!=`.
        number: What the metric is compared with.
    """

    metric: str
    comparison: str
    number: float

    def __str__(self) -> str:
        """Give it as a person writes it."""
        return f"{self.metric}{self.comparison}{self.number:g}"

    def holds(self, metrics: Mapping[str, float | None]) -> bool:
        """Tell whether the test failed by it; so it did when the metric could not be measured."""
        value = metrics[self.metric]
        return value is None or _COMPARISONS[self.comparison](value, self.number)


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        UserError: It is not of the form, or names no metric; the text says what would be right.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise UserError(
            f"--fail-if {text!r} is not a metric, one of {' '.join(_COMPARISONS)}, and a number, such as 'p99_ms>200'."
        )
    metric = found["metric"]
    if metric not in METRICS:
        nearest = difflib.get_close_matches(metric, METRICS, n=1, cutoff=0.0)[0]
        raise UserError(
            f"--fail-if {text!r}: {metric} is not measured; the nearest is {nearest}. All are: {', '.join(METRICS)}."
        )
    return Condition(metric, found["comparison"], float(found["number"]))
