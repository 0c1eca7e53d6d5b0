"""The tests that prove each promise: the rows of docs/reliability.md.

A test is a pytest node id or its beginning: a file, a class, or a test with all its parameters.
"""

from dataclasses import dataclass

_HERE = "tests/reliability/test_promise_"
_LIVE = "tests/integration/"
_UNIT = "tests/unit/"


@dataclass(frozen=True, slots=True)
class Row:
    """One promise or one threat.

    Attributes:
        name: The name of the promise or threat.
        says: The promise in a sentence, or the defence.
        tests: The tests that prove it; empty where none does yet.
        elsewhere: A check in CI outside pytest that proves it.
    """

    name: str
    says: str
    tests: tuple[str, ...] = ()
    elsewhere: str = ""


PROMISES = (
    Row(
        "1 Isolation",
        "Stalled listeners do not touch healthy ones.",
        (
            _HERE + "isolation.py",
            _LIVE + "test_delivery_bounds.py::test_a_listener_that_stalled_resumes_at_what_its_bound_allows",
        ),
    ),
    Row(
        "2 Bounded memory",
        "However many stall, memory is flat; every queue has its bound.",
        (_HERE + "bounded_memory.py", _UNIT + "test_audio_buffer_manager_properties.py"),
    ),
    Row(
        "3 Bounded staleness",
        "Nothing older than the listener's bound is written.",
        (
            _HERE + "bounded_staleness.py",
            _LIVE + "test_delivery_bounds.py::test_no_byte_older_than_the_bound_is_written_to_a_listener_at_half_speed",
            _LIVE + "test_delivery_bounds.py::test_audio_that_grew_old_while_the_source_paused_is_not_written",
        ),
    ),
    Row(
        "4 Exact accounting",
        "Delivered frames and announced gaps are the published frames, for every listener, in every fault test.",
        (
            _HERE + "exact_accounting.py",
            _LIVE + "test_delivery_bounds.py::test_every_account_is_exact_however_listeners_come_stall_and_go",
            _UNIT + "test_hub_properties.py",
        ),
    ),
    Row(
        "5 Dead and stalled peers go",
        "Black hole, closed window, half close: gone within 20 s, on both event loops, with and without TLS.",
        (_HERE + "peers_go.py", _LIVE + "test_tls.py::test_stalled_and_silent_peers_are_cut_off"),
    ),
    Row(
        "6 Shutdown always ends",
        "SIGTERM ends before the deadline with exit code 0, whatever clients and networks do.",
        (_HERE + "shutdown.py", _LIVE + "test_stopping.py"),
    ),
    Row(
        "7 No unauthorised audio, no double broadcaster",
        "Who may do what is checked for role, session and channel; one has a channel at a time.",
        (
            _HERE + "one_broadcaster.py",
            _LIVE + "test_access.py::test_matrix_of_role_session_and_channel",
            _LIVE + "test_access.py::test_a_take_over_needs_the_right_to_broadcast_there",
        ),
    ),
    Row(
        "8 Hostile clients have a budget",
        "Floods of everything, each alone and all at once, cost healthy listeners nothing.",
        (_HERE + "hostile_clients.py", _LIVE + "test_floods.py"),
    ),
    Row(
        "9 No byte crashes it",
        "Whatever is read from strangers is taken or refused; no exception, no end.",
        (
            _HERE + "no_byte_crashes.py",
            _UNIT + "test_tokens.py",
            _UNIT + "test_messages.py",
            _UNIT + "test_requests.py",
        ),
    ),
    Row(
        "10 Metrics never touch audio",
        "CloudWatch may refuse, throttle or hang: nothing is lost but metrics, and those are counted.",
        (
            _LIVE + "test_cloudwatch.py::test_an_outage_loses_nothing_and_is_logged_once",
            _LIVE + "test_cloudwatch.py::test_a_hanging_endpoint_delays_no_sample_and_no_end",
            _UNIT + "test_metrics.py",
        ),
    ),
    Row("11 Losing the bus or a node", "There is no bus yet."),
    Row(
        "12 Overload refuses, never degrades",
        "Who is one too many gets 503 with Retry-After; those inside notice nothing.",
        (_LIVE + "test_door.py",),
    ),
    Row(
        "13 Soak",
        "After much coming and going descriptors, tasks and memory are as before, and counters reconcile.",
        (_HERE + "soak.py",),
    ),
)

THREATS = (
    Row(
        "publishing without right",
        "broadcast scope bound to session and channel, checked at the handshake and at take-over",
        (
            _LIVE + "test_access.py::test_matrix_of_role_session_and_channel",
            _LIVE + "test_access.py::test_a_take_over_needs_the_right_to_broadcast_there",
        ),
    ),
    Row(
        "no secret configured",
        "only loopback, with a generated key; another address refuses to start and says how to go on",
        (_LIVE + "test_access.py::TestNoSecret",),
    ),
    Row("token in logs", "subprotocol or header; a canary in every output", (_LIVE + "test_secrets.py",)),
    Row(
        "cross-site WebSocket", "Origin checked before the upgrade; no cookies", (_LIVE + "test_access.py::TestOrigin",)
    ),
    Row(
        "session guessing",
        "same answer for unknown and forbidden; a limit of failures per address",
        (
            _LIVE + "test_access.py::test_one_answer_for_unknown_and_forbidden",
            _LIVE + "test_door.py::test_an_address_that_fails_too_often_is_asked_to_wait_and_no_other",
        ),
    ),
    Row(
        "slow handshake, connection flood",
        "deadlines, caps for pending, in all and per address; X-Forwarded-For only from trusted proxies",
        (
            _LIVE + "test_door.py::test_a_handshake_that_is_too_slow_or_too_large_is_told_so",
            _LIVE + "test_door.py::test_those_who_hold_the_door_open_go_first_when_there_are_too_many",
            _LIVE + "test_door.py::test_an_address_has_so_many_connections_behind_a_proxy_or_not",
            _UNIT + "test_limits_addresses.py",
        ),
    ),
    Row(
        "oversized or malformed audio",
        "size caps per role; whole samples only; a clear error, then a close",
        (
            _LIVE + "test_server.py::TestPeersThatMisbehave::test_odd_audio_is_told_four_times_and_closes_the_fifth",
            _LIVE + "test_server.py::TestPeersThatMisbehave::test_broadcaster_message_too_big",
        ),
    ),
    Row(
        "ingest faster than real time",
        "pacing and TCP backpressure",
        (
            _LIVE + "test_session_life.py::test_audio_sent_at_full_speed_is_slowed_down_and_none_is_lost",
            _LIVE + "test_floods.py::test_a_broadcaster_over_its_rate_is_read_no_faster_and_loses_nothing",
        ),
    ),
    Row(
        "listener that talks",
        "rate and size caps, then a policy close",
        (
            _LIVE + "test_server.py::TestPeersThatMisbehave::test_listener",
            _LIVE + "test_floods.py::test_who_is_over_a_budget_is_told_which",
        ),
    ),
    Row(
        "compression bomb",
        "compression is never negotiated",
        ("tests/reliability/test_threats.py::test_compression_is_never_negotiated",),
    ),
    Row(
        "path traversal",
        "pages are a fixed table loaded at start",
        (
            _UNIT + "test_pages.py::test_every_script_style_text_and_sound_of_the_folder_is_served_and_nothing_else",
            _UNIT + "test_pages.py::test_other_paths_are_none",
        ),
    ),
    Row("log injection", "structured logs, escaped", (_UNIT + "test_logs.py::test_no_input_forges_a_line",)),
    Row(
        "metric cardinality",
        "ids are no dimensions unless the operator asks for them",
        (_UNIT + "test_metrics.py::test_an_overflow_counts_without_its_session_when_sessions_have_no_series",),
    ),
    Row(
        "token confusion",
        "fixed algorithms, required claims, key ids from an allow-list, expiry on open connections",
        (
            _LIVE + "test_access.py::test_token_confusion_at_a_real_relay",
            _LIVE + "test_access.py::TestOpenConnections",
            _UNIT + "test_tokens.py::test_token_confusion",
        ),
    ),
    Row(
        "container",
        "non-root, read-only root, no capabilities, health check, base of one release",
        elsewhere=".ci/container",
    ),
)
