"""A relay's answer to its operator as a table, and answers that do not come from a relay."""

from rich.cells import cell_len

from relay.cli.sessions import channel_rows, connection_rows, render_table

SESSION = {
    "id": "ev1",
    "channels": [
        {
            "id": "de",
            "name": "日本語\x1b[2J",
            "state": "live",
            "pace": "speech",
            "format": {"codec": "opus", "rate": 48_000, "channels": 2},
            "listeners": 1,
            "broadcaster": {"connection_id": "b1", "client_address": "192.0.2.9"},
            "queued_ms": 7980,
            "dropped_frames": 3,
        },
        {"id": "main", "name": "main", "state": "waiting", "format": None, "listeners": 0, "broadcaster": None},
    ],
    "worst_listeners": [
        {
            "connection_id": "l1",
            "client_address": "192.0.2.7",
            "channel": "de",
            "codec": "pcm_s16le",
            "lag_ms": 1200,
            "delivered_seconds": 12.34,
            "dropped_seconds": 0.5,
            "blocked_seconds": 1.0,
            "report": {"buffer_ms": 240.0, "playout_ms": 310.5, "underruns": 2, "jumps": 1},
        },
        {"connection_id": "l2", "client_address": "", "report": None},
    ],
}


def test_a_table_has_straight_columns_whatever_is_in_it() -> None:
    titles, german, main = render_table(channel_rows([SESSION])).split("\n")
    assert "\x1b" not in german
    assert "Opus 48000 Hz stereo speech" in german
    assert "8.0 s" in german
    assert main.split() == ["ev1", "main", "main", "waiting", "–", "0", "–", "–", "–"]
    column = titles.index("state")
    assert cell_len(german[: german.index("live")]) == column == main.index("waiting")


def test_connections_are_broadcasters_and_listeners() -> None:
    _, broadcaster, worst, other = connection_rows(SESSION)
    assert list(broadcaster) == ["b1", "broadcast", "de", "opus", "192.0.2.9", *"–––––"]
    assert list(worst) == [
        *("l1", "listen", "de", "pcm_s16le", "192.0.2.7", "1200 ms", "12.3 s", "0.5 s", "1.0 s"),
        "delay 310 ms, buffer 240 ms, ran dry 2, jumped 1",
    ]
    assert list(other) == ["l2", "listen", *"––––––––"]


def test_what_another_program_answers_is_a_table_of_nothing() -> None:
    assert len(connection_rows({})) == 1
    assert render_table(channel_rows([{"channels": [{}]}])).split("\n")[1].split() == ["–"] * 9


def test_a_table_says_when_audio_does_not_come_in_real_time() -> None:
    channel = {"format": {"rate": 16_000, "channels": 1}, "pace": "live", "arrival_rate": 1.5}
    assert channel_rows([{"channels": [channel]}])[1][4] == "16000 Hz mono live at 1.50 times real time"


def test_a_table_says_why_there_is_nothing_to_hear() -> None:
    channels = [{"state": "live", "silence": silence} for silence in ("muted", None)]
    assert [row[3] for row in channel_rows([{"channels": channels}])] == ["state", "live, muted", "live"]


def test_in_a_cluster_each_connection_has_its_node() -> None:
    channels = [{"id": "de", "broadcaster": {"connection_id": "b1", "node": "one\x1b"}}]
    listeners = [{"connection_id": "l1", "node": "two"}, {"connection_id": "l2"}]
    rows = connection_rows({"channels": channels, "worst_listeners": listeners, "silent_nodes": []})
    assert [(row[0], row[-1]) for row in rows] == [
        ("connection", "node"),
        ("b1", "one?"),
        ("l1", "two"),
        ("l2", "–"),
    ]
