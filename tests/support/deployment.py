"""The cluster of config/cluster/compose.yaml as processes of this machine."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.local_cluster import LocalCluster, read_compose, running_cluster
from tests.support.certificates import Certificate, make_certificate
from tests.support.ports import free_port

BROADCAST_KEY, ADMIN_KEY = "a-broadcast-key", "an-admin-key"

# NATS would read it as a number if the compose file did not quote it.
NATS_PASSWORD = "1234567890"  # noqa: S105 - not a real secret


@dataclass(frozen=True, slots=True)
class Deployment:
    """The running cluster.

    Attributes:
        local: Its processes and ports.
        certificate: The certificate of nginx.
    """

    local: LocalCluster
    certificate: Certificate

    @property
    def context(self) -> ssl.SSLContext:
        return self.certificate.trusting

    @property
    def site(self) -> str:
        """`127.0.0.1:PORT` of nginx."""
        return f"127.0.0.1:{self.local.port('nginx', 443)}"

    @property
    def relays(self) -> list[str]:
        return self.local.named("relay")

    def url(self, relay: str) -> str:
        """`http://127.0.0.1:PORT` of a relay, without nginx."""
        return f"http://127.0.0.1:{self.local.port(relay, 8080)}"

    @property
    def access_log(self) -> str:
        return self.local.log("nginx").read_text(encoding="utf-8", errors="replace")

    def relay_of(self, address: str) -> str:
        """Return the relay at `127.0.0.1:PORT`, as nginx's log names it."""
        return next(name for name in self.relays if self.url(name).endswith(f"//{address}"))


@asynccontextmanager
async def deployment(directory: Path, **settings: Mapping[str, str]) -> AsyncIterator[Deployment]:
    """Run the cluster until the block ends. `settings` are further environment variables, by service with _ for -."""
    certificate = make_certificate(directory)
    variables = {
        "NATS_PASSWORD": NATS_PASSWORD,
        "RELAY_BROADCAST_KEY": BROADCAST_KEY,
        "RELAY_ACCESS_ADMIN_KEY": ADMIN_KEY,
        "RELAY_CERTIFICATE": str(certificate.certificate),
        "RELAY_CERTIFICATE_KEY": str(certificate.key),
    }
    services = read_compose(variables)
    for name, service in services.items():
        environment = service.setdefault("environment", {})
        if "RELAY_SERVER_SHUTDOWN_DELAY_SECONDS" in environment:
            # No load balancer watches /readyz here.
            environment["RELAY_SERVER_SHUTDOWN_DELAY_SECONDS"] = "0"
        environment.update(settings.get(name.replace("-", "_"), {}))
    async with running_cluster(services, directory, free_port) as local:
        yield Deployment(local, certificate)
