"""Where settings come from, how errors describe them, and that the documentation names every key."""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from relay.cli.config import config_command, render_toml
from relay.settings.configuration import DEFAULT_ORIGIN, KEYS, LoadedSettings, load_settings, resolve
from relay.settings.settings import Settings
from relay.vocabulary.errors import ConfigurationError

REPOSITORY = Path(__file__).parents[2]
FILE = "relay.toml"

VALUES: Mapping[str, tuple[Any, Any, Any]] = {
    "server.host": (["::1", "127.0.0.1"], ["localhost"], ["*", "::1"]),
    "server.port": (1, 2, 3),
    "server.workers": (2, "auto", 4),
    "server.loop": ("asyncio", "uvloop", "auto"),
    "server.trusted_proxies": (["10.0.0.0/8"], ["::1", "127.0.0.1"], []),
    "server.tls_certificate": ("a.pem", "b.pem", "c.pem"),
    "server.tls_key": ("a.key", "b.key", "c.key"),
    "server.shutdown_delay_seconds": (1.5, 2.5, 0.5),
    "server.shutdown_window_seconds": (1.5, 2.5, 3.5),
    "server.shutdown_timeout_seconds": (1.5, 2.5, 3.5),
    "broadcast.key": ("first-key", "second-key", "third-key"),
    "broadcast.grace_seconds": (1.0, 2.0, 3.0),
    "broadcast.ahead_seconds": (1.0, 2.5, 3.0),
    "broadcast.lead_seconds": (1.0, 1.5, 3.0),
    "broadcast.queue_seconds": (1.0, 2.0, 3.0),
    "broadcast.forget_seconds": (1.0, 2.0, 3.0),
    "listener.history_seconds": (0.0, 2.0, 3.0),
    "broadcast.open": (True, False, True),
    "access.sessions": (["ev*"], ["a", "b"], ["c"]),
    "access.open_sessions": (["ev*"], [], ["c"]),
    "access.allowed_origins": (["https://a.example"], ["same-origin", "http://[::1]:8080"], ["*"]),
    "access.admin_key": ("first-admin", "second-admin", "third-admin"),
    "access.token_secret": ("1" * 32, "2" * 32, "3" * 32),
    "access.token_key_files": (["a.pem"], ["b.pem", "c.jwks"], []),
    "access.token_issuer": ("A", "B", "C"),
    "access.token_audience": ("A", "B", "C"),
    "access.token_leeway_seconds": (1.0, 0.0, 3.0),
    "access.token_in_query": (True, False, True),
    "listener.max_buffer_seconds": (1.0, 2.0, 3.0),
    "listener.coalesce_ms": (20, 40, 60),
    "listener.stall_limit_seconds": (1.0, 2.0, "never"),
    "opus.enabled": (False, True, False),
    "opus.bitrate": (16_000, 32_000, 64_000),
    "opus.complexity": (0, 5, 10),
    "opus.frame_ms": (20, 40, 60),
    "stream.enabled": (False, True, False),
    "stream.mp3_bitrate": (32_000, 128_000, 192_000),
    "channel.declared": (["ev1/de de Deutsch"], ["*/main - The speaker", "a/fr fr Français"], []),
    "limits.max_connections": (1, 2, 3),
    "limits.max_listeners_per_session": (1, 2, "never"),
    "limits.max_broadcasters_per_session": (1, 2, "never"),
    "limits.max_connections_per_address": (1, "never", 3),
    "limits.max_failures_per_minute": (1, 2, "never"),
    "limits.max_pending_handshakes": (1, 2, 3),
    "limits.handshake_timeout_seconds": (1.0, 2.0, 3.0),
    "limits.max_handshake_bytes": (4096, 5000, 6000),
    "limits.max_body_bytes": (0, 5000, 6000),
    "limits.max_audio_messages_per_second": ("never", 2, 3),
    "limits.max_texts_per_second": (1, 2, "never"),
    "limits.max_pings_per_second": (1, 2, "never"),
    "limits.max_fragments_per_second": (1, 2, "never"),
    "limits.max_unread_bytes": (65_536, 70_000, 80_000),
    "limits.max_requests_per_second_per_address": (1, 2, "never"),
    "limits.max_requests_per_second": (1, 2, "never"),
    "limits.max_costly_requests_per_second_per_address": (1, 2, "never"),
    "limits.max_costly_requests_per_second": (1, 2, "never"),
    "limits.max_joins_per_second_per_address": (1, 2, "never"),
    "limits.max_joins_per_second": (1, 2, "never"),
    "limits.max_switches_per_second": (1, 2, "never"),
    "limits.max_switches_per_second_per_address": (1, 2, "never"),
    "limits.max_control_messages_per_second_per_address": (1, 2, "never"),
    "limits.max_abandoned_channels_per_session": (1, 2, "never"),
    "limits.max_abandoned_channels": (1, 2, "never"),
    "limits.max_abandoned_bytes_per_session": (1, 2, "never"),
    "limits.max_abandoned_bytes": (1, 2, "never"),
    "limits.max_lag_ms": (1, 2, "never"),
    "cluster.url": ("nats://a-host", "nats://u:b-secret@b-host:1,tls://c-host", "tls://d-token@[::1]:4"),
    "cluster.credentials_file": ("a.creds", "b.creds", "c.creds"),
    "cluster.nkey_seed_file": ("a.nk", "b.nk", "c.nk"),
    "cluster.tls_ca_file": ("a.pem", "b.pem", "c.pem"),
    "cluster.tls_certificate": ("a.pem", "b.pem", "c.pem"),
    "cluster.tls_key": ("a.key", "b.key", "c.key"),
    "cluster.prefix": ("a", "b-1", "C_2"),
    "cluster.node": ("a", "b-1", "C_2"),
    "cluster.replicas": (2, 3, 5),
    "cluster.max_audio_bytes": (20_000_000, 30_000_000, 40_000_000),
    "cloudwatch.enabled": (True, False, True),
    "cloudwatch.region": ("eu-west-1", "eu-west-2", "eu-west-3"),
    "cloudwatch.endpoint_url": ("http://127.0.0.1:1", "https://a.example/x", "http://[::1]:3"),
    "cloudwatch.namespace": ("A", "B", "C"),
    "cloudwatch.flush_interval_seconds": (1.0, 2.0, 3.0),
    "cloudwatch.utilization_interval_seconds": (1.0, 2.0, 3.0),
    "cloudwatch.session_dimension": (False, True, False),
    "prometheus.enabled": (True, False, True),
    "log.level": ("debug", "warning", "error"),
    "log.format": ("console", "json", "auto"),
    "client.url": ("ws://a:1", "wss://b", "http://c:3/"),
    "client.token": ("first-token", "second-token", "third-token"),
}
"""Three valid values for each key: one for the file, one for the environment, one for the command line."""


def text(value: object) -> str:
    if isinstance(value, list):
        return ("; " if any(" " in part for part in value) else ", ").join(value) or "[]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def plain(loaded: LoadedSettings, dotted: str) -> object:
    """Return a loaded value in the form that VALUES uses."""
    section, name = dotted.split(".")
    value = getattr(getattr(loaded.settings, section), name)
    if KEYS[dotted].is_secret and value is not None:
        return value.get_secret_value()
    if isinstance(value, tuple):
        return list(value)
    return "never" if value is None and "never" in VALUES[dotted] else value


def faults(
    *,
    document: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        resolve(document or {}, FILE, environ or {}, overrides or {})
    return str(caught.value).splitlines()


def test_every_key_has_values_in_this_test() -> None:
    assert set(VALUES) == set(KEYS)


def test_nothing_set_gives_the_defaults() -> None:
    loaded = load_settings(None, {}, {})
    assert loaded.settings == Settings()
    assert loaded.origins == dict.fromkeys(KEYS, DEFAULT_ORIGIN)


@given(
    st.fixed_dictionaries({dotted: st.sets(st.sampled_from(["file", "environment", "option"])) for dotted in VALUES})
)
def test_command_line_over_environment_over_file_over_default(sources: dict[str, set[str]]) -> None:
    document: dict[str, dict[str, object]] = {}
    environ: dict[str, str] = {"PATH": "/bin", "RELAY_CONFIG": "ignored here"}
    overrides: dict[str, object] = {}
    expected: dict[str, tuple[object, str]] = {}
    defaults = resolve({}, "", {}, {})
    for dotted, present in sources.items():
        in_file, in_environment, in_option = VALUES[dotted]
        key = KEYS[dotted]
        expected[dotted] = (plain(defaults, dotted), DEFAULT_ORIGIN)
        if "file" in present:
            document.setdefault(key.section, {})[key.name] = in_file
            expected[dotted] = (in_file, FILE)
        if "environment" in present:
            environ["RELAY_" + dotted.replace(".", "_").upper()] = text(in_environment)
            expected[dotted] = (in_environment, "RELAY_" + dotted.replace(".", "_").upper())
        overrides[dotted] = in_option if "option" in present else None
        if "option" in present:
            expected[dotted] = (in_option, "--" + dotted.partition(".")[2].replace("_", "-"))

    loaded = resolve(document, FILE, environ, overrides)

    assert {dotted: (plain(loaded, dotted), loaded.origins[dotted]) for dotted in VALUES} == expected


def test_one_host_needs_no_list_and_is_shown_without() -> None:
    loaded = resolve({"server": {"host": "::1"}}, FILE, {}, {})
    assert loaded.settings.server.host == ("::1",)
    assert 'host = "::1"' in render_toml(loaded)


def test_only_the_given_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_SERVER_PORT", "1")
    monkeypatch.setenv("RELAY_NONSENSE", "1")
    assert load_settings(None, {}, {"RELAY_SERVER_PORT": "2"}).settings.server.port == 2


def test_file_is_read_and_named(tmp_path: Path) -> None:
    path = tmp_path / "my relay.toml"
    path.write_text("[server]\nport = 9000\n", encoding="utf-8")
    loaded = load_settings(path, {}, {})
    assert loaded.settings.server.port == 9000
    assert loaded.origins["server.port"] == str(path)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"server": {"prot": 1}}, "relay.toml: server.prot is not a setting; the nearest is server.port."),
        ({"listener": {"port": 1}}, "relay.toml: listener.port is not a setting; the nearest is server.port."),
        ({"prt": 1}, "relay.toml: prt is not a setting; the nearest is server.port."),
        ({"sever": {}}, "relay.toml: sever is not a setting; the nearest is server."),
        ({"zzzz": 1}, "relay.toml: zzzz is not a setting; `relay config` lists all."),
        ({"a\n\x1b[31m": 1}, r'relay.toml: "a\n\u001b[31m" is not a setting; `relay config` lists all.'),
        ({"server": 1}, "server (from relay.toml) must be a table: the line [server], with its keys below."),
        ({"server": {"port": "80"}}, 'server.port (from relay.toml) must be a whole number, not "80".'),
        ({"server": {"port": True}}, "server.port (from relay.toml) must be a whole number, not true."),
        ({"server": {"port": 70000}}, "server.port (from relay.toml) must be at most 65535, not 70000."),
        (
            {"server": {"host": ""}},
            'server.host (from relay.toml) must be a host name or an address, or a list of them, not "".',
        ),
        (
            {"server": {"host": []}},
            "server.host (from relay.toml) must be a host name or an address, or a list of them, not [].",
        ),
        ({"server": {"host": ["::1", 5]}}, "server.host (from relay.toml) must be text, in quotes, not 5."),
        (
            {"server": {"host": "a..b"}},
            'server.host (from relay.toml) must be a host name or an address, not "a..b".',
        ),
        (
            {"channel": {"declared": ["*/de de Deutsch", "ev1/de de Deutsch", "*/de - German"]}},
            (
                "channel.declared (from relay.toml) must declare each channel only once, but declares */de several "
                'times, not ["*/de de Deutsch", "ev1/de de Deutsch", "*/de - German"].'
            ),
        ),
        (
            {"server": {"host": 5}},
            "server.host (from relay.toml) must be a host name or an address, or a list of them, not 5.",
        ),
        ({"cloudwatch": {"enabled": 1}}, "cloudwatch.enabled (from relay.toml) must be true or false, not 1."),
        (
            {"listener": {"max_buffer_seconds": "never"}},
            'listener.max_buffer_seconds (from relay.toml) must be a number, not "never".',
        ),
        (
            {"log": {"level": "loud"}},
            "log.level (from relay.toml) must be 'debug', 'info', 'warning' or 'error', not \"loud\".",
        ),
    ],
)
def test_fault_in_the_file_is_one_sentence(document: Mapping[str, object], sentence: str) -> None:
    assert faults(document=document) == [sentence]


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "localhost:9000", "[::1]:9000", "*:9000", "http://127.0.0.1:9000/"])
def test_a_host_with_a_port_names_the_setting_of_the_port(host: str) -> None:
    (sentence,) = faults(overrides={"server.host": host})
    problem = "must be a host without a port; set server.port (--port) to 9000"
    assert sentence == f'server.host (from --host) {problem}, not "{host}".'


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("[::1]", ", without a scheme, a path or brackets"),
        ("https://relay.example.org", ", without a scheme, a path or brackets"),
        ("127.0.0.1/relay", ", without a scheme, a path or brackets"),
        ("::1::2", ""),
        ("*.example.org", ""),
        ("a;b", ""),
    ],
)
def test_a_host_is_a_name_or_an_address(host: str, problem: str) -> None:
    (sentence,) = faults(environ={"RELAY_SERVER_HOST": host})
    problem = f"must be a host name or an address{problem}"
    assert sentence == f'server.host (from RELAY_SERVER_HOST) {problem}, not "{host}".'


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "fe80::1%eth0", "*", "localhost", "my_box", "bücher.example", "a."]
)
def test_every_kind_of_host_is_one(host: str) -> None:
    assert resolve({}, "", {"RELAY_SERVER_HOST": host}, {}).settings.server.host == (host,)


@pytest.mark.parametrize("value", [0, -1, "soon", True, float("inf"), float("nan")])
def test_a_limit_is_a_positive_number_or_never(value: object) -> None:
    (sentence,) = faults(document={"listener": {"stall_limit_seconds": value}})
    assert (
        'listener.stall_limit_seconds (from relay.toml) must be a number of seconds above 0, or "never", not '
        in sentence
    )


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("RELAY_SERVER_PROT", "1", "RELAY_SERVER_PROT is not a setting; the nearest is RELAY_SERVER_PORT."),
        ("RELAY_PORT", "1", "RELAY_PORT is not a setting; the nearest is RELAY_SERVER_PORT."),
        ("RELAY_CONFIGS", "1", "RELAY_CONFIGS is not a setting; the nearest is RELAY_CONFIG."),
        ("RELAY_SERVER_PORT", "", "RELAY_SERVER_PORT is empty; give it a value, or unset it."),
        ("RELAY_SERVER_PORT", "80a", 'server.port (from RELAY_SERVER_PORT) must be a whole number, not "80a".'),
        ("RELAY_SERVER_HOST", "\udcff", r'server.host (from RELAY_SERVER_HOST) must be UTF-8 text, not "\udcff".'),
        (
            "RELAY_CLIENT_URL",
            "ws://h/path?query",
            (
                "client.url (from RELAY_CLIENT_URL) must be an address such as ws://127.0.0.1:8080 or "
                'https://example.org/relay, not "ws://h/path?query".'
            ),
        ),
        (
            "RELAY_CLIENT_URL",
            "ws://a..b",
            (
                "client.url (from RELAY_CLIENT_URL) must be an address such as ws://127.0.0.1:8080 or "
                'https://example.org/relay, not "ws://a..b".'
            ),
        ),
        (
            "RELAY_CLOUDWATCH_ENDPOINT_URL",
            "http://h:99999",
            (
                "cloudwatch.endpoint_url (from RELAY_CLOUDWATCH_ENDPOINT_URL) must be an address such as "
                'http://127.0.0.1:5000, not "http://h:99999".'
            ),
        ),
    ],
    ids=ascii,
)
def test_fault_in_the_environment_is_one_sentence(variable: str, value: str, sentence: str) -> None:
    assert faults(environ={variable: value}) == [sentence]


def test_fault_of_an_option_names_the_option() -> None:
    assert faults(overrides={"server.port": 70000}) == ["server.port (from --port) must be at most 65535, not 70000."]


def test_all_faults_of_all_sources_are_told_at_once() -> None:
    sentences = faults(
        document={"server": {"port": "80"}, "log": {"level": 1}},
        environ={"RELAY_SERVER_PORT": "x", "RELAY_X": "1"},
        overrides={"server.port": -1},
    )
    assert [sentence.split(" ")[0] for sentence in sentences] == [
        "RELAY_X",
        "server.port",
        "log.level",
        "server.port",
        "server.port",
    ]


def test_a_long_value_is_cut() -> None:
    (sentence,) = faults(environ={"RELAY_SERVER_PORT": "9" * 100_000})
    assert len(sentence) < 200


@pytest.mark.parametrize(
    ("document", "environ"),
    [
        ({"broadcast": {"key": "tooshrt"}}, {}),
        ({"broadcast": {"key": 1234567890}}, {}),
        ({"broadcast": {"key": ["hunter2!"]}}, {}),
        ({"broadcast": "hunter2!"}, {}),
        ({"key": "hunter2!"}, {}),
        ({}, {"RELAY_BROADCAST_KEY": "hunter2! "}),
        ({}, {"RELAY_BROADCAST_KEYS": "hunter2!"}),
    ],
)
def test_no_fault_shows_a_secret(document: dict[str, object], environ: dict[str, str]) -> None:
    (sentence,) = faults(document=document, environ=environ)
    assert "key" in sentence.lower()
    assert not any(secret in sentence for secret in ("tooshrt", "1234567890", "hunter2"))


def test_a_valid_key_is_not_in_any_text_of_the_settings() -> None:
    settings = resolve({}, "", {"RELAY_BROADCAST_KEY": "hunter2-hunter2"}, {}).settings
    assert settings.broadcast.key is not None
    assert settings.broadcast.key.get_secret_value() == "hunter2-hunter2"
    assert "hunter2" not in f"{settings} {settings!r} {settings.model_dump_json()}"


def test_kubernetes_service_variables_are_passed_over() -> None:
    links = {
        "RELAY_SERVICE_HOST": "10.0.0.1",
        "RELAY_SERVICE_PORT": "8080",
        "RELAY_SERVICE_PORT_HTTP": "8080",
        "RELAY_PORT": "tcp://10.0.0.1:8080",
        "RELAY_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "RELAY_PORT_8080_TCP_ADDR": "10.0.0.1",
        "RELAY_PORT_8080_TCP_PORT": "8080",
        "RELAY_PORT_8080_TCP_PROTO": "tcp",
    }
    in_pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.10"}
    assert resolve({}, "", links | in_pod, {}).settings == Settings()
    assert len(faults(environ=links)) == len(links)
    assert faults(environ=in_pod | {"RELAY_PORT": "9000"}) == [
        "RELAY_PORT is not a setting; the nearest is RELAY_SERVER_PORT."
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[server\n", "is not valid TOML: Expected ']' at the end of a table declaration (at line 1, column 8)."),
        (b"[server]\nport = 1\nport = 2\n", "is not valid TOML: Cannot overwrite a value (at line 3, column 9)."),
        (b"a = " + b"[" * 20_000, "is not valid TOML: it is nested too deeply."),
        (b'[server]\nhost = "\xff"\n', "is not UTF-8 text, because of the byte at offset 17; save the file as UTF-8."),
    ],
)
def test_a_file_that_is_not_toml_says_where(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / FILE
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, {}, {})
    assert str(caught.value) == f"{path} {sentence}"


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(b"\xef\xbb\xbf[server]\r\nport = 9000\r\n")
    assert load_settings(path, {}, {}).settings.server.port == 9000


@pytest.mark.parametrize("variable", ["RELAY_BROADCAST_KEY", "RELAY_ACCESS_TOKEN_SECRET", "RELAY_CLIENT_TOKEN"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_one_line_end_behind_a_secret_is_left_out(variable: str, end: str) -> None:
    secret = "k" * 40
    section, name = next(key for key in KEYS if KEYS[key].variable == variable).split(".")
    for loaded in (
        resolve({}, "", {variable: secret + end}, {}),
        resolve({section: {name: secret + end}}, FILE, {}, {}),
    ):
        assert plain(loaded, f"{section}.{name}") == secret


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("key-of-relay\n\n", "the last one is a line break"),
        ("key-of\r\nrelay", "number 7 is a carriage return"),
        ("key-of-relay\r", "the last one is a carriage return"),
        ('"key-of-relay"', "the first one is a double quote"),
        ("key-of-relay'", "the last one is a single quote"),
        ("key of relay", "number 4 is a space"),
        ("\ufeffkey-of-relay", "the first one is a byte-order mark"),
        ("key-of-reläy", "number 11 is ä"),
        ("key-of-relay\x7f", "the last one is U+007F"),
        ("key-of-relay\udcff", "the last one is U+DCFF"),
    ],
)
def test_a_character_that_a_key_cannot_have_is_named(key: str, what: str) -> None:
    (sentence,) = faults(environ={"RELAY_BROADCAST_KEY": key})
    form = "broadcast.key (from RELAY_BROADCAST_KEY) must have 8 to 256 characters, only A-Z a-z 0-9 . _ ~ -"
    assert sentence == f"{form}; {what}."


def test_a_missing_file_and_a_directory_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no\.toml cannot be read: No such file or directory\.$"):
        load_settings(tmp_path / "no.toml", {}, {})
    with pytest.raises(ConfigurationError, match=r" cannot be read: Is a directory\.$"):
        load_settings(tmp_path, {}, {})


def test_the_documented_file_equals_the_defaults_and_names_every_key() -> None:
    path = REPOSITORY / "config/relay.toml"
    assert load_settings(path, {}, {}).settings == Settings()
    lines = path.read_text(encoding="utf-8").splitlines()
    document = tomllib.loads("\n".join(lines))
    named = {f"{section}.{name}" for section, table in document.items() for name in table}
    section = ""
    for line in lines:
        section = line.strip("[]") if line.startswith("[") else section
        if line.startswith("# ") and line.split(" ")[2:3] == ["="]:
            named.add(f"{section}.{line.split(' ')[1]}")
    assert named == set(KEYS)
    assert all(f"# Environment: {key.variable}" in lines for key in KEYS.values())


def run_config(*arguments: str, environ: Mapping[str, str] | None = None) -> str:
    clean = {name: None for name in os.environ if name.startswith("RELAY_")}
    result = CliRunner().invoke(config_command, arguments, env=clean | dict(environ or {}), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_table_shows_values_and_where_they_came_from(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text('[listener]\nstall_limit_seconds = "never"\n', encoding="utf-8")
    output = run_config(
        environ={"RELAY_CONFIG": str(path), "RELAY_SERVER_PORT": "9000", "RELAY_BROADCAST_KEY": "hunter2-hunter2"}
    )
    rows = {line.split()[0]: line.split()[1:] for line in output.splitlines()}
    assert rows["server.host"] == ['"127.0.0.1"', "default"]
    assert rows["server.port"] == ["9000", "RELAY_SERVER_PORT"]
    assert rows["listener.stall_limit_seconds"] == ['"never"', str(path)]
    assert rows["cloudwatch.region"] == ["(unset)", "default"]
    assert rows["broadcast.key"][-1] == "RELAY_BROADCAST_KEY"
    assert set(KEYS) <= set(rows)
    assert "hunter2" not in output


def test_toml_output_can_be_loaded_again_and_names_origins(tmp_path: Path) -> None:
    environ = {
        KEYS[dotted].variable: text(values[1]) for dotted, values in VALUES.items() if dotted != "cloudwatch.namespace"
    }
    environ["RELAY_CLOUDWATCH_NAMESPACE"] = 'quote " back \\ delete \x7f bell \x07 emoji \U0001f399'
    output = run_config("--format", "toml", environ=environ)
    path = tmp_path / FILE
    path.write_text(output, encoding="utf-8")

    again = load_settings(path, {}, {}).settings

    wanted = load_settings(None, {}, environ).settings.model_dump()
    for key in KEYS.values():
        if key.is_secret:
            wanted[key.section][key.name] = None
    assert again.model_dump() == wanted
    assert "port = 2  # from RELAY_SERVER_PORT\n" in output
    assert '# key = "…"  # from RELAY_BROADCAST_KEY, hidden\n' in output
    assert all(str(VALUES[dotted][1]) not in output for dotted, key in KEYS.items() if key.is_secret)


def test_json_output_has_value_and_origin() -> None:
    tree = json.loads(run_config("--format", "json", environ={"RELAY_BROADCAST_KEY": "hunter2-hunter2"}))
    assert tree["server"]["port"] == {"value": 8080, "origin": "default"}
    assert tree["broadcast"]["key"] == {"value": "…", "origin": "RELAY_BROADCAST_KEY"}
    assert tree["cloudwatch"]["region"] == {"value": None, "origin": "default"}
    assert {f"{section}.{name}" for section, table in tree.items() for name in table} == set(KEYS)
