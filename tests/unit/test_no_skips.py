from pathlib import Path

import pytest

pytest_plugins = "pytester"

CONFTEST = Path(__file__).parent.parent / "conftest.py"

SKIPS = {
    "mark": "@pytest.mark.skip(reason='not today')\ndef test_it(): pass",
    "condition": "@pytest.mark.skipif(True, reason='not today')\ndef test_it(): pass",
    "call": "def test_it(): pytest.skip('not today')",
    "fixture": "@pytest.fixture\ndef it(): pytest.skip('not today')\ndef test_it(it): pass",
    "module": "pytest.skip('not today', allow_module_level=True)",
    "import": "pytest.importorskip('not_today')",
    "expected failure": "@pytest.mark.xfail(reason='not today')\ndef test_it(): raise AssertionError",
}


@pytest.mark.parametrize("source", SKIPS.values(), ids=SKIPS.keys())
def test_every_kind_of_skip_fails_the_run(pytester: pytest.Pytester, source: str) -> None:
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile(f"import pytest\n{source}")
    result = pytester.runpytest_inprocess("--disable-plugin-autoload")
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*no test may be skipped (*not*today*"])


def test_a_run_without_skips_passes(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_inprocess("--disable-plugin-autoload")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
