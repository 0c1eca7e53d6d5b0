"""Rules for every test: none is skipped, none fails for being slow, and the long ones begin first.

It also defines the option that selects the load of the promises' tests.

In a run that passed, a skip hides that something was not tested. `make test` installs everything that tests need.
"""

import logging
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("relay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("relay")

# In debug mode, asyncio warns of each callback that takes 0.1 s, which any may on a busy machine.
logging.getLogger("asyncio").addFilter(lambda record: record.msg != "Executing %s took %.3f seconds")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--load",
        choices=("ci", "reference"),
        default="ci",
        help="load of the tests of the promises (tests/reliability/loads.py); reference takes half an hour, by hand",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_if_skipped(report)
    # A worker process sends its reports as UTF-8, but logged text may not be valid UTF-8.
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_skipped(report)
    return report


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome == "skipped":
        # pytest reports an expected failure as a skip with this attribute, and never counts it as a failure.
        expected_failure = report.__dict__.pop("wasxfail", None)
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else expected_failure
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: no test may be skipped ({reason})"
