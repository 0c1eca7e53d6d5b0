"""Write everything that is generated from the code: tables of the documentation, config/relay.toml, the API documents.

    python -m scripts.generate [--check]

With `--check` it writes nothing, and exits with 1 if a file is out of date. A test runs this check.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from relay.metrics.table import METRICS, UNIT_OF_TIME, Kind, Metric
from relay.vocabulary.errors import FORBIDDEN, CloseCode
from scripts.api_documents import asyncapi, openapi
from scripts.reference import cli_page, relay_toml, settings_in_markdown

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 116
"""The width of a line of JavaScript."""


def close_codes_in_javascript() -> Iterable[str]:
    """Yield the player's table."""
    for code in CloseCode:
        yield f"export const {code.name} = {code};"
    final = ", ".join(code.name for code in CloseCode if not code.may_reconnect and code not in FORBIDDEN)
    yield ""
    yield f"const FINAL_CODES = new Set([{final}]);"
    yield ""
    yield "const SENTENCES = new Map(["
    for code in CloseCode:
        if code.sentence:
            yield f"  [{code.name}, {json.dumps(code.sentence)}],"
    yield "]);"


def close_codes_in_markdown() -> Iterable[str]:
    """Yield the protocol's table."""
    yield "| code | meaning | the client | HTTP status before the upgrade |"
    yield "|---|---|---|---|"
    for code in CloseCode:
        yield f"| {int(code)} | {code.meaning} | {code.advice} | {code.http_status or '–'} |"


def metrics_in_markdown() -> Iterable[str]:
    """Yield the table of metrics that count no loss."""
    yield "| Prometheus | CloudWatch | type | unit | what it is |"
    yield "|---|---|---|---|---|"
    for metric in METRICS:
        if not metric.is_loss:
            yield (
                f"| {_names(metric)} | {metric.kind} | {_unit(metric)} | {metric.text} {metric.advice}".rstrip() + " |"
            )


def losses_in_markdown() -> Iterable[str]:
    """Yield the table of counters that stay at 0 while all is well."""
    yield "| Prometheus | CloudWatch | what it counts | what makes it grow |"
    yield "|---|---|---|---|"
    for metric in METRICS:
        if metric.is_loss:
            yield f"| {_names(metric)} | {metric.text} | {metric.advice} |"


def _names(metric: Metric) -> str:
    suffix = "_total" if metric.kind is Kind.COUNTER else ""
    labels = f"{{{','.join(metric.labels)}}}" if metric.labels else ""
    prometheus = f"`{metric.prometheus}{suffix}{labels}`" if metric.prometheus else "–"
    return f"{prometheus} | {f'`{metric.cloudwatch}`' if metric.cloudwatch else '–'}"


def _unit(metric: Metric) -> str:
    return "seconds, milliseconds" if metric.unit == UNIT_OF_TIME else metric.unit.lower()


SECTIONS: tuple[tuple[str, str, Callable[[], Iterable[str]]], ...] = (
    ("relay/pages/player/close-codes.js", "close codes", close_codes_in_javascript),
    ("docs/protocol.md", "close codes", close_codes_in_markdown),
    ("docs/configuration.md", "settings", settings_in_markdown),
    ("docs/metrics.md", "metrics", metrics_in_markdown),
    ("docs/metrics.md", "losses", losses_in_markdown),
)
"""The generated parts of files: the file, the name in its marks, and the function that returns the lines."""


def fill(text: str, name: str, lines: Iterable[str]) -> str:
    """Return `text` with `lines` between the marks of a section."""
    before, begin, rest = text.partition(f"begin generated: {name}")
    _, end, after = rest.partition("end generated")
    if not begin or not end:
        raise SystemExit(f"There is no section {name!r} to write.")
    made = "\n".join(lines)
    rest_of_mark, _, _ = rest.partition("\n")
    mark = before.rpartition("\n")[2]
    return f"{before}{begin}{rest_of_mark}\n{made}\n{mark}{end}{after}"


def files() -> dict[Path, str]:
    """Return the files with their correct contents."""
    texts: dict[Path, str] = {}
    for name, section, make in SECTIONS:
        path = ROOT / name
        texts[path] = fill(texts.get(path) or path.read_text(encoding="utf-8"), section, make())
    for name, document in (("asyncapi", asyncapi()), ("openapi", openapi())):
        text = json.dumps(document, indent=1, ensure_ascii=False)
        texts[ROOT / "relay" / "pages" / f"{name}.json"] = f"{text}\n"
    texts[ROOT / "config" / "relay.toml"] = relay_toml()
    texts[ROOT / "docs" / "cli.md"] = cli_page()
    return texts


def main() -> None:
    """Write or check all files."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what the code says: run `python -m scripts.generate`.")
        sys.exit(bool(stale))
    for path in stale:
        path.write_text(files()[path], encoding="utf-8")
        print(f"Wrote {path.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
