"""config/cluster agrees with itself, with the site for a single relay, and with the guide."""

import re
from typing import Any

import pytest

from relay.settings.settings import ServerSettings
from scripts.local_cluster import COMPOSE, ROOT, LocalCluster, read_compose

VARIABLES = {
    "NATS_PASSWORD": "1234567890",
    "RELAY_BROADCAST_KEY": "a-broadcast-key",
    "RELAY_ACCESS_ADMIN_KEY": "an-admin-key",
    "RELAY_CERTIFICATE": "/certificate.pem",
    "RELAY_CERTIFICATE_KEY": "/key.pem",
}
SITE = (ROOT / "config" / "nginx.conf").read_text(encoding="utf-8")
CLUSTER_SITE = (COMPOSE.parent / "nginx.conf").read_text(encoding="utf-8")
NATS = (COMPOSE.parent / "nats-server.conf").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return read_compose(VARIABLES)


def of_kind(services: dict[str, dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services.items() if service["image"].partition(":")[0] == kind}


@pytest.mark.parametrize("name", VARIABLES)
def test_no_secret_has_a_default(name: str) -> None:
    with pytest.raises(KeyError, match=f"{name}: set it in .env"):
        read_compose({key: value for key, value in VARIABLES.items() if key != name})


def test_there_are_three_of_each_behind_one_nginx(services: dict[str, dict[str, Any]]) -> None:
    assert list(of_kind(services, "nats")) == ["nats-1", "nats-2", "nats-3"]
    assert list(of_kind(services, "relay")) == ["relay-1", "relay-2", "relay-3"]
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]


def test_everybody_knows_all_of_the_others(services: dict[str, dict[str, Any]]) -> None:
    nats, relays = of_kind(services, "nats"), of_kind(services, "relay")
    assert re.findall(r"^ +server (\S+?):8080 max_fails=0;", CLUSTER_SITE, re.MULTILINE) == list(relays)
    for service in relays.values():
        url = service["environment"]["RELAY_CLUSTER_URL"]
        assert url.split(",") == [f"nats://relay:1234567890@{name}:4222" for name in nats]
        assert list(service["depends_on"]) == list(nats)
    for name, service in nats.items():
        assert service["environment"]["NATS_NAME"] == name
        assert re.findall(r"@(\S+?):6222", service["environment"]["NATS_ROUTES"]) == list(nats)


def test_relays_differ_only_in_their_name_and_believe_nginx_alone(services: dict[str, dict[str, Any]]) -> None:
    (nginx,) = of_kind(services, "nginx").values()
    shared = set()
    for name, service in of_kind(services, "relay").items():
        environment = dict(service["environment"])
        assert environment.pop("RELAY_CLUSTER_NODE") == name
        assert environment["RELAY_SERVER_TRUSTED_PROXIES"] == nginx["networks"]["front"]["ipv4_address"]
        shared.add(tuple(environment.items()))
    assert len(shared) == 1


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_docker_waits_longer_than_anything_needs_to_stop(services: dict[str, dict[str, Any]]) -> None:
    for service in of_kind(services, "relay").values():
        prefix, environment = "RELAY_SERVER_SHUTDOWN_", service["environment"]
        stopping = {
            name: float(environment[f"{prefix}{name.upper()}_SECONDS"]) for name in ("delay", "window", "timeout")
        }
        ServerSettings.model_validate({f"shutdown_{name}_seconds": value for name, value in stopping.items()})
        assert stopping["window"] <= stopping["timeout"] / 2
        assert seconds(service["stop_grace_period"]) > stopping["delay"] + stopping["timeout"]
    duration = re.search(r'lame_duck_duration: "(\d+s)"', NATS)
    assert duration
    for service in of_kind(services, "nats").values():
        assert service["stop_signal"] == "SIGUSR2"
        assert seconds(service["stop_grace_period"]) > seconds(duration[1])


def directives(site: str) -> set[str]:
    """Return the directives of a site, each in one line, without comments and blocks."""
    uncommented = re.sub(r"^\s*#.*$", "", site, flags=re.MULTILINE)
    return {" ".join(found.split()) for found in re.findall(r"[^{};]+;", uncommented)}


def test_the_site_is_that_of_a_single_relay_but_for_the_choice_of_relays() -> None:
    single, cluster = directives(SITE), directives(CLUSTER_SITE)
    only_single = {
        '"~^/(v1/)?(broadcast|listen|sessions)/(?<relay_named>[^/]+)" $relay_named;',
        r'"~^/stream/(?<relay_streamed>[^/]+?)(/[^/]+)?\.(opus|mp3|wav)$" $relay_streamed;',
        "access_log /var/log/nginx/relay.log relay;",
        "error_log /var/log/nginx/error.log alert;",
        "proxy_connect_timeout 3s;",
        "server 127.0.0.1:8080 max_fails=0;",
        "server_name relay.example.org;",
    }
    # The named location of the cluster is the single relay's: one attempt.
    assert single - cluster == {found for found in single if found in only_single}
    assert {found for found in only_single if found not in single} == set()
    assert "proxy_next_upstream off;" in cluster
    assert {found for found in cluster - single if found.startswith(("proxy", "least", "hash"))} == {
        "proxy_next_upstream error timeout http_502 http_503;",
        "proxy_next_upstream_timeout 10s;",
        "proxy_connect_timeout 1s;",
        "least_conn;",
    }


def test_names_ports_and_paths_become_those_of_this_machine(tmp_path: Any) -> None:
    ports = iter(range(1, 100))
    cluster = LocalCluster(read_compose(VARIABLES), tmp_path, lambda: next(ports))
    assert cluster.command("nats-1") == ["nats-server", "--config", f"{tmp_path}/nats-1/nats-server.conf"]
    first = cluster.localized("nats-1", "nats-1:4222 nats-2:4222 0.0.0.0:4222 172.30.77.2 /data")
    assert first == f"127.0.0.1:1 127.0.0.1:2 127.0.0.1:1 127.0.0.1 {tmp_path}/nats-1/data"
    assert cluster.localized("nginx", "listen 443 ssl; /etc/relay/key.pem relay-1:8080") == (
        "listen 127.0.0.1:4 ssl; /key.pem 127.0.0.1:3"
    )
    environment = cluster.environment("relay-1")
    assert environment["RELAY_SERVER_PORT"] == "3"
    assert environment["RELAY_SERVER_TRUSTED_PROXIES"] == "127.0.0.1"
    assert "nats-" not in environment["RELAY_CLUSTER_URL"]
