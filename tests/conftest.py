"""What holds for every test: none is skipped; and how much load the tests of the promises make.

A skip hides, in a run that passed, that something was not tested. What a test needs, `make test` installs.
"""

from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--load",
        choices=("ci", "reference"),
        default="ci",
        help="load of the tests of the promises (tests/reliability/loads.py); reference takes half an hour, by hand",
    )


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
