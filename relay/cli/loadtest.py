"""`relay loadtest`: shows whether this relay, on this machine and network, can carry an event."""

import io
import json
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console

from relay.cli.client import broadcast_credential, listen_credential, load_client_settings, run, url_option
from relay.cli.options import FiniteRange, codec_option, config_option
from relay.cli.output import EXIT_FAILURE, EXIT_USER_ERROR, say, show
from relay.loadtest.machine import check_ports, is_this_machine, raise_file_limit, reach
from relay.loadtest.plan import LoadPlan, Profile
from relay.loadtest.report_page import report_page
from relay.loadtest.results import Condition, LoadResult, parse_condition
from relay.loadtest.run import STOPPED, LoadRun, Probe
from relay.loadtest.source import quiet_audio, relay_source
from relay.loadtest.table import progress_line, result_table
from relay.loadtest.target import Expect, Target
from relay.protocol.requests import Role
from relay.vocabulary.audio import Codec
from relay.vocabulary.errors import UserError
from relay.vocabulary.names import ChannelAddress

FRAMES_PER_PROCESS = 150_000
"""Frames per second for each receiving process, if the number of processes is not set."""

PIPE_WIDTH = 120
"""Columns of the table when the output is not a terminal."""

_SECURE_PORT, _PLAIN_PORT = 443, 80


@click.command("loadtest")
@url_option
@click.option(
    "--listeners", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Concurrent listeners."
)
@click.option(
    "--sessions",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Sessions, each with one broadcaster. The listeners are spread over them.",
)
@click.option(
    "--duration",
    "duration_seconds",
    metavar="SECONDS",
    type=FiniteRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Duration of the audio.",
)
@click.option("--fps", type=click.IntRange(1, 1000), default=50, show_default=True, help="Frames per second.")
@click.option(
    "--frame-ms",
    type=click.IntRange(1, 250),
    default=20,
    show_default=True,
    help="Duration of the audio in a frame, in milliseconds. It is 16 kHz mono.",
)
@codec_option(
    "The codec that the broadcasters send.",
    "--source-codec",
)
@codec_option(
    "The codec that the listeners request. If the broadcasters send another one, the relay converts it.",
)
@click.option(
    "--packet-ms",
    type=click.IntRange(0, 100),
    default=0,
    show_default=True,
    help="With --codec opus: how much audio the listeners request in a message, in milliseconds.",
)
@click.option(
    "--profile",
    type=click.Choice([profile.value for profile in Profile]),
    default=Profile.STEADY.value,
    show_default=True,
    help="How the listeners and broadcasters behave; see above.",
)
@click.option(
    "--slow-percent",
    type=FiniteRange(0, 100, min_open=True),
    default=10.0,
    show_default=True,
    help="Share of listeners that stop reading in the profile slow, in percent.",
)
@click.option(
    "--late-ms",
    type=click.IntRange(1, 10_000),
    default=200,
    show_default=True,
    help="Latency from which a frame counts as late, in milliseconds.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    help="Number of receiving processes. By default, as many as the load needs.",
)
@click.option("--pin", metavar="CPU[,CPU…]", help="Run the load generator only on these CPUs, for benchmarks.")
@click.option(
    "--nap-ms",
    type=FiniteRange(0, 10),
    default=0,
    show_default=True,
    help="How long a receiving process sleeps before it checks its sockets again, in milliseconds. With 0, each frame "
    "wakes it.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all figures to this file as JSON.")
@click.option(
    "--html", "html_path", type=click.Path(path_type=Path), help="Write an HTML page with charts to this file."
)
@click.option(
    "--fail-if",
    "conditions",
    metavar="CONDITION",
    multiple=True,
    help="Exit with code 1 if this condition holds, such as 'p99_ms>200'. Repeat it for several.",
)
@config_option
def loadtest_command(
    *,
    url: str | None,
    profile: str,
    source_codec: str,
    codec: str,
    processes: int | None,
    pin: str | None,
    json_path: Path | None,
    html_path: Path | None,
    conditions: Sequence[str],
    config_path: Path | None,
    **chosen: Any,  # noqa: ANN401 - the options that click read
) -> None:
    """Test a relay under load, and measure what each listener receives.

    The command connects broadcasters and listeners of its own.

    \b
    --profile steady  all listeners join before the audio begins, and stay
              ramp    they join evenly over the first two thirds
              storm   they all join at the same moment, a second after the audio began
              churn   each stays 5 to 15 s, then another one joins
              slow    some stop reading: are the others affected?
              burst   the broadcaster sends one second of audio at once, every second

    The sessions are called loadtest-…, with random letters. If the relay needs credentials, set RELAY_BROADCAST_KEY for
    the broadcasters, or RELAY_CLIENT_TOKEN to a token with both roles. Ctrl-C ends the test early and prints what was
    measured.

    Exit code: 0 if all is well; 1 if a --fail-if condition holds, frames are unaccounted for, or the relay failed; 2 if
    you made a mistake, or a file or standard output cannot be written.
    """  # noqa: D301 - \b is click's mark for lines that are kept
    if sys.platform != "linux":
        raise UserError("relay loadtest runs only on Linux, because its receiver needs epoll.")
    settings = load_client_settings(config_path, url)
    failures = [parse_condition(condition) for condition in conditions]
    listeners, sessions = chosen["listeners"], chosen["sessions"]
    if sessions > listeners:
        raise UserError(
            f"{sessions} sessions need at least as many listeners, not {listeners}; raise --listeners or lower "
            "--sessions."
        )
    for path in (json_path, html_path):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise UserError(f"{path} cannot be written: it is a directory, or its directory does not exist.")
    _check_packets(Codec(source_codec), Codec(codec), chosen["frame_ms"], chosen["packet_ms"])
    plan = LoadPlan(
        url=settings.client.url,
        profile=Profile(profile),
        source_codec=Codec(source_codec),
        codec=Codec(codec),
        processes=processes or _processes_for(listeners * chosen["fps"]),
        cpus=_read_cpus(pin),
        **chosen,
    )
    results: list[LoadResult] = []
    measuring = _measure(plan, broadcast_credential(settings), listen_credential(settings), results)
    run(measuring, "RELAY_BROADCAST_KEY and RELAY_CLIENT_TOKEN")
    (result,) = results
    sys.exit(_conclude(result, failures, json_path, html_path))


async def _measure(plan: LoadPlan, key: str | None, token: str | None, results: list[LoadResult]) -> None:
    """Run the test and append its result. Broadcasters use `key`, listeners `token`."""
    name = f"loadtest-{secrets.token_hex(2)}"
    addresses = [ChannelAddress(f"{name}-{number + 1}") for number in range(plan.sessions)]
    _prepare_this_machine(plan)
    async with relay_source(plan, plan.url, addresses, key) as source:
        targets = _find_targets(plan, addresses, token)
        probe, notes = _find_probe(plan, targets[0])
        with progress_line(plan) as show_progress:
            load_run = LoadRun(plan, targets, source, probe=probe, show=show_progress)
            result = await load_run.run([*notes, *_plan_notes(plan)])
    results.append(replace(result, measured_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"))


def _prepare_this_machine(plan: LoadPlan) -> None:
    """Raise the file limit, check the ports and set the CPUs."""
    # Departing listeners still close their connections while new ones connect.
    spare = 1.5 if plan.profile is Profile.CHURN else 1.0
    raise_file_limit(max(plan.sessions, round(plan.listeners / plan.processes * spare)))
    check_ports(plan.listeners + plan.sessions)
    if plan.cpus:
        os.sched_setaffinity(0, plan.cpus)


def _find_targets(plan: LoadPlan, addresses: Sequence[ChannelAddress], token: str | None) -> list[Target]:
    parts = urlsplit(plan.url)
    secure = parts.scheme in {"wss", "https"}
    name = parts.hostname or ""
    port = parts.port or (_SECURE_PORT if secure else _PLAIN_PORT)
    host = reach(name, port)
    tls_name = name if secure else None
    root = f"{parts.path.rstrip('/')}/v1/{Role.LISTENER}"
    # A stamp of the sender does not survive a conversion.
    expect = Expect.RELAY_V1 if plan.is_converted else Expect.RELAY_V1_STAMPED
    return [
        Target(host, port, f"{root}/{address}?{plan.query}", parts.netloc, tls_name, expect, token, plan.codec)
        for address in addresses
    ]


def _find_probe(plan: LoadPlan, target: Target) -> tuple[Probe | None, list[str]]:
    """Return a probe of the server's processes, if they run here, and notes for the person."""
    if not is_this_machine(target.host):
        return None, []
    try:
        from relay.loadtest.server_probe import find_server  # noqa: PLC0415 - optional: the extra "load"
    except ImportError:
        return None, ["To measure the server's CPU time and memory, install psutil: pip install 'audio-relay[load]'."]
    probe = find_server(target.port)
    if probe is None:
        return None, ["The server's CPU time and memory are not measured, because this user cannot see its processes."]
    needed = plan.listeners + plan.sessions
    if probe.max_files is not None and probe.max_files < needed:
        few = f"The server may open {probe.max_files} files, fewer than this test's {needed} connections"
        return probe, [f"{few}; raise its `ulimit -n`."]
    return probe, []


def _plan_notes(plan: LoadPlan) -> list[str]:
    share = plan.fps * plan.frame_ms / 10
    if round(share) == 100:  # noqa: PLR2004 - per cent
        return []
    return [f"{plan.fps} frames/s of {plan.frame_ms} ms are {share:.0f} % of real time; 100 % is like a live voice."]


def _check_packets(source_codec: Codec, codec: Codec, frame_ms: int, packet_ms: int) -> None:
    """Check the options that are about Opus.

    Raises:
        UserError: They contradict each other.
    """
    if packet_ms and codec is not Codec.OPUS:
        raise UserError("--packet-ms is for listeners of Opus; add --codec opus.")
    try:
        quiet_audio(source_codec, frame_ms)
    except ValueError as error:
        raise UserError(f"--frame-ms {frame_ms}: an Opus packet lasts a multiple of 5 ms, up to 120 ms.") from error


def _processes_for(frames_per_second: int) -> int:
    """Return how many receiving processes to run. One CPU is left to the server, in case it runs here."""
    needed = -(-frames_per_second // FRAMES_PER_PROCESS)
    return min(needed, max(1, len(os.sched_getaffinity(0)) - 1))


def _read_cpus(text: str | None) -> tuple[int, ...]:
    """Read the numbers of CPUs."""
    if text is None:
        return ()
    allowed = os.sched_getaffinity(0)
    numbers = [int(word) if word.isdecimal() else -1 for word in text.split(",")]
    if not set(numbers) <= allowed:
        raise UserError(f"--pin {text} must be CPUs that this process may use: {', '.join(map(str, sorted(allowed)))}.")
    return tuple(numbers)


def _conclude(
    result: LoadResult, conditions: Sequence[Condition], json_path: Path | None, html_path: Path | None
) -> int:
    """Write the files, print the table and the conditions that hold, and return the exit code.

    If a file cannot be written, everything else still is; the error is printed last.
    """
    metrics = result.metrics()
    held = [condition for condition in conditions if condition.holds(metrics)]
    unwritten: list[UserError] = []
    with _noting(unwritten):
        if json_path is not None:
            told = [
                {"condition": str(condition), "value": metrics[condition.metric], "holds": condition in held}
                for condition in conditions
            ]
            _write(json_path, json.dumps(result.to_json() | {"conditions": told}, indent=1) + "\n")
    with _noting(unwritten):
        if html_path is not None:
            _write(html_path, report_page(result))
    # A closed pipe is not an error: its reader wants no more output.
    with _noting(unwritten), suppress(BrokenPipeError):
        show(_render(result), nl=False)
    for condition in held:
        value = metrics[condition.metric]
        found = "could not be measured" if value is None else f"is {value:,.6g}"
        say(f"relay: --fail-if {condition}: {condition.metric} {found}.")
    for problem in unwritten:
        say(f"relay: {problem}")
    if held or metrics["unaccounted_frames"] or result.ended_early not in (None, STOPPED):
        return EXIT_FAILURE
    return EXIT_USER_ERROR if unwritten else 0


def _render(result: LoadResult) -> str:
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    text = io.StringIO()
    width = None if on_terminal else PIPE_WIDTH
    Console(file=text, force_terminal=on_terminal, width=width, highlight=False).print(result_table(result))
    return text.getvalue()


@contextmanager
def _noting(problems: list[UserError]) -> Iterator[None]:
    """Record a mistake of the person, and continue."""
    try:
        yield
    except UserError as error:
        problems.append(error)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error
