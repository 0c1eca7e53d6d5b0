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
        "Stalled listeners do not affect healthy ones.",
        (
            _HERE + "isolation.py",
            _LIVE + "test_delivery_bounds.py::test_a_listener_that_stalled_resumes_at_what_its_bound_allows",
        ),
    ),
    Row(
        "2 Bounded memory",
        "However many listeners stall, memory does not grow. Every queue has a bound.",
        (_HERE + "bounded_memory.py", _UNIT + "test_audio_buffer_manager_properties.py"),
    ),
    Row(
        "3 Bounded staleness",
        "The relay never writes audio that is older than the listener's bound.",
        (
            _HERE + "bounded_staleness.py",
            _LIVE + "test_delivery_bounds.py::test_no_byte_older_than_the_bound_is_written_to_a_listener_at_half_speed",
            _LIVE + "test_delivery_bounds.py::test_audio_that_grew_old_while_the_source_paused_is_not_written",
        ),
    ),
    Row(
        "4 Exact accounting",
        "For every listener, the delivered frames and the announced gaps are exactly the published frames.",
        (
            _HERE + "exact_accounting.py",
            _LIVE + "test_delivery_bounds.py::test_every_account_is_exact_however_listeners_come_stall_and_go",
            _UNIT + "test_hub_properties.py",
        ),
    ),
    Row(
        "5 Dead and stalled peers go",
        "The relay drops a peer within 20 s of a black hole, a closed window or a half close. This holds on both event "
        "loops, with and without TLS.",
        (_HERE + "peers_go.py", _LIVE + "test_tls.py::test_stalled_and_silent_peers_are_cut_off"),
    ),
    Row(
        "6 Shutdown always ends",
        "After SIGTERM, the relay exits with code 0 before its deadline, whatever clients and networks do.",
        (_HERE + "shutdown.py", _LIVE + "test_stopping.py"),
    ),
    Row(
        "7 No unauthorised audio, no double broadcaster",
        "The relay checks role, session and channel. A channel has one broadcaster at a time.",
        (
            _HERE + "one_broadcaster.py",
            _LIVE + "test_access.py::test_matrix_of_role_session_and_channel",
            _LIVE + "test_access.py::test_a_take_over_needs_the_right_to_broadcast_there",
        ),
    ),
    Row(
        "8 Hostile clients have a budget",
        "Floods of every kind, alone and all at once, cost healthy listeners nothing.",
        (_HERE + "hostile_clients.py", _LIVE + "test_floods.py"),
    ),
    Row(
        "9 No byte crashes it",
        "The relay accepts or refuses everything that strangers send. Nothing raises an exception or ends it.",
        (
            _HERE + "no_byte_crashes.py",
            _UNIT + "test_tokens.py",
            _UNIT + "test_messages.py",
            _UNIT + "test_requests.py",
        ),
    ),
    Row(
        "10 Metrics never touch audio",
        "When CloudWatch refuses, throttles or hangs, only metrics are lost, and the relay counts them.",
        (
            _LIVE + "test_cloudwatch.py::test_an_outage_loses_nothing_and_is_logged_once",
            _LIVE + "test_cloudwatch.py::test_a_hanging_endpoint_delays_no_sample_and_no_end",
            _UNIT + "test_metrics.py",
        ),
    ),
    Row(
        "11 Losing the bus or a node",
        "When NATS, a node or a link fails, each listener's account stays exact on every node, a channel has one "
        "broadcaster at a time, and its audio goes on within seconds.",
        (_HERE + "cluster.py", _LIVE + "test_nats_failures.py", _UNIT + "test_cluster.py"),
    ),
    Row(
        "12 Overload refuses, never degrades",
        "A client beyond the limit gets HTTP 503 with Retry-After. Connected clients notice nothing. In a cluster, "
        "limits per session and address count over all nodes.",
        (_LIVE + "test_door.py", _UNIT + "test_cluster_seats.py"),
    ),
    Row(
        "13 Soak",
        "After many clients have come and gone, descriptors, tasks and memory are as before, and the counters agree.",
        (_HERE + "soak.py",),
    ),
)

THREATS = (
    Row(
        "publishing without permission",
        "A permission names sessions and channels. The relay checks it at the handshake and at a take-over.",
        (
            _LIVE + "test_access.py::test_matrix_of_role_session_and_channel",
            _LIVE + "test_access.py::test_a_take_over_needs_the_right_to_broadcast_there",
        ),
    ),
    Row(
        "no secret configured",
        "The relay then listens on loopback only, with a generated key. On another address it refuses to start, and "
        "says what to set.",
        (_LIVE + "test_access.py::TestNoSecret",),
    ),
    Row(
        "token in logs",
        "Tokens travel in a subprotocol or a header. A test searches every output for them.",
        (_LIVE + "test_secrets.py",),
    ),
    Row(
        "cross-site WebSocket",
        "The relay checks the origin before the upgrade, and uses no cookies.",
        (_LIVE + "test_access.py::TestOrigin",),
    ),
    Row(
        "session guessing",
        "Unknown and forbidden sessions get the same answer. Failures per address are limited.",
        (
            _LIVE + "test_access.py::test_one_answer_for_unknown_and_forbidden",
            _LIVE + "test_door.py::test_an_address_that_fails_too_often_is_asked_to_wait_and_no_other",
        ),
    ),
    Row(
        "slow handshake, connection flood",
        "Handshakes have deadlines. Pending connections are limited per address and for all. The relay believes "
        "X-Forwarded-For only from trusted proxies.",
        (
            _LIVE + "test_door.py::test_a_handshake_that_is_too_slow_or_too_large_is_told_so",
            _LIVE + "test_door.py::test_those_who_hold_the_door_open_go_first_when_there_are_too_many",
            _LIVE + "test_door.py::test_an_address_has_so_many_connections_behind_a_proxy_or_not",
            _UNIT + "test_limits_addresses.py",
        ),
    ),
    Row(
        "oversized or malformed audio",
        "Each role has a maximum size, and only whole samples count. The peer gets an error, then a close.",
        (
            _LIVE + "test_server.py::TestPeersThatMisbehave::test_odd_audio_is_told_four_times_and_closes_the_fifth",
            _LIVE + "test_server.py::TestPeersThatMisbehave::test_broadcaster_message_too_big",
        ),
    ),
    Row(
        "ingest faster than real time",
        "The relay paces the audio and slows the sender down through TCP.",
        (
            _LIVE + "test_session_life.py::test_audio_sent_at_full_speed_is_slowed_down_and_none_is_lost",
            _LIVE + "test_floods.py::test_a_broadcaster_over_its_rate_is_read_no_faster_and_loses_nothing",
        ),
    ),
    Row(
        "listener that talks",
        "Rates and sizes are limited. Beyond them, the relay closes with the code for policy.",
        (
            _LIVE + "test_server.py::TestPeersThatMisbehave::test_listener",
            _LIVE + "test_floods.py::test_who_is_over_a_budget_is_told_which",
        ),
    ),
    Row(
        "compression bomb",
        "The relay never negotiates compression.",
        ("tests/reliability/test_threats.py::test_compression_is_never_negotiated",),
    ),
    Row(
        "path traversal",
        "Pages are a fixed table that is loaded at the start.",
        (
            _UNIT + "test_pages.py::test_every_script_style_text_and_sound_of_the_folder_is_served_and_nothing_else",
            _UNIT + "test_pages.py::test_other_paths_are_none",
        ),
    ),
    Row(
        "log injection",
        "Logs are structured, and values are escaped.",
        (_UNIT + "test_logs.py::test_no_input_forges_a_line",),
    ),
    Row(
        "metric cardinality",
        "Ids are not dimensions, unless the operator asks for them.",
        (_UNIT + "test_metrics.py::test_an_overflow_counts_without_its_session_when_sessions_have_no_series",),
    ),
    Row(
        "token confusion",
        "Algorithms are fixed, claims are required, and key ids come from a list. Open connections expire too.",
        (
            _LIVE + "test_access.py::test_token_confusion_at_a_real_relay",
            _LIVE + "test_access.py::TestOpenConnections",
            _UNIT + "test_tokens.py::test_token_confusion",
        ),
    ),
    Row(
        "container",
        "The image runs without root, with a read-only root file system and no capabilities. It has a health check and "
        "a fixed base.",
        elsewhere=".ci/container",
    ),
)
