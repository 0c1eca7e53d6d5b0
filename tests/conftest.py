"""What holds for every test: none is skipped, none fails because it is slow, the long ones begin first.

It also has the option that chooses the load of the promises' tests.

A skip hides, in a run that passed, that something was not tested. What a test needs, `make test` installs.
"""

import logging
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("relay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("relay")

# In debug mode asyncio warns of each callback that takes 0.1 s, which on a busy machine any does.
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
    # A process that runs tests sends its reports as UTF-8, which what a test logged need not be.
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_skipped(report)
    return report


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome == "skipped":
        # pytest keeps an expected failure as a skipped report with this attribute, and never counts that as failed.
        expected_failure = report.__dict__.pop("wasxfail", None)
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else expected_failure
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: no test may be skipped ({reason})"
