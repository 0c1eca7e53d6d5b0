"""The addresses of the NATS servers, and the credentials of a node.

Invariant: no message of this module contains a password or a token. A node sends them only to a server, and with
`tls://` only over TLS.
"""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from relay.settings.settings import ClusterSettings
from relay.vocabulary.errors import ConfigurationError

DEFAULT_PORT = 4222

_SEED = re.compile(rb"^\s*SU[A-Z2-7]{56}\s*\Z")
_CREDENTIALS = re.compile(
    rb"BEGIN NATS USER JWT-+\r?\n[\w.=-]+\r?\n.*BEGIN USER NKEY SEED-+\r?\nSU[A-Z2-7]{56}\r?\n", re.DOTALL
)
"""The forms of the files that nsc writes."""


class NotEncryptedError(ConfigurationError):
    """The address begins with `tls://`, but the server offers no TLS."""


class NotingContext(ssl.SSLContext):
    """A TLS context that knows whether it was used. nats-py does not tell so before it sends the password."""

    is_used = False

    def wrap_bio(self, *args: object, **kwargs: object) -> ssl.SSLObject:
        """Begin TLS, as asyncio does for each connection."""
        self.is_used = True
        return super().wrap_bio(*args, **kwargs)  # type: ignore[arg-type] # passed on as they are


@dataclass(frozen=True, slots=True)
class Address:
    """A server.

    Attributes:
        url: Its address without user and password, for the client and for people.
        user: The user, or the token if there is no password; None if there is neither.
        password: The user's password.
        requires_tls: Whether an unencrypted connection is refused.
    """

    url: str
    user: str | None
    password: str | None
    requires_tls: bool

    @classmethod
    def read(cls, text: str) -> "Address":
        """Read an address from the setting, whose form has been checked."""
        parts = urlsplit(text)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
        url = f"{parts.scheme}://{host}:{parts.port or DEFAULT_PORT}"
        return cls(url, user, password, parts.scheme == "tls")


@dataclass(frozen=True, slots=True)
class Login:
    """What a client needs to connect.

    Attributes:
        addresses: The servers.
        name: The name of the connection in the servers' lists.
        credentials_file: See `ClusterSettings`.
        nkey_seed_file: See `ClusterSettings`.
        ca_file: See `ClusterSettings.tls_ca_file`.
        certificate: See `ClusterSettings.tls_certificate`.
        key: See `ClusterSettings.tls_key`.
    """

    addresses: tuple[Address, ...]
    name: str
    credentials_file: str | None
    nkey_seed_file: str | None
    ca_file: str | None
    certificate: str | None
    key: str | None

    @classmethod
    def read(cls, settings: ClusterSettings, name: str) -> "Login":
        """Return the login that the settings describe.

        Raises:
            ConfigurationError: There is no address, a file is unusable, or two settings exclude each other.
        """
        if settings.url is None:
            raise ConfigurationError("cluster.url is not set.")
        if settings.credentials_file and settings.nkey_seed_file:
            raise ConfigurationError("cluster.credentials_file and cluster.nkey_seed_file exclude each other.")
        if settings.tls_key and not settings.tls_certificate:
            raise ConfigurationError("cluster.tls_key needs cluster.tls_certificate.")
        login = cls(
            tuple(Address.read(part.strip()) for part in settings.url.get_secret_value().split(",")),
            name,
            settings.credentials_file,
            settings.nkey_seed_file,
            settings.tls_ca_file,
            settings.tls_certificate,
            settings.tls_key,
        )
        _check_form("cluster.credentials_file", settings.credentials_file, _CREDENTIALS, "credentials of a NATS user")
        _check_form("cluster.nkey_seed_file", settings.nkey_seed_file, _SEED, "the NKey seed of a NATS user")
        login.make_context()
        return login

    @property
    def shown(self) -> str:
        """The addresses, for people."""
        return ", ".join(address.url for address in self.addresses)

    def make_context(self) -> NotingContext:
        """Return a TLS context for one connection.

        Raises:
            ConfigurationError: A file is unusable. The text says which and why.
        """
        context = NotingContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self.ca_file is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(self.ca_file)
        except (OSError, ssl.SSLError) as error:
            _unusable("cluster.tls_ca_file", self.ca_file, error)
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except (OSError, ssl.SSLError) as error:
                _unusable("cluster.tls_certificate", self.certificate, error)
        return context

    def options(self, address: Address, context: NotingContext) -> dict[str, object]:
        """Return the options of nats-py's `Client.connect` that identify this node to one server."""
        options: dict[str, object] = {"name": self.name, "tls": context}
        if self.credentials_file is not None:
            options["user_credentials"] = self.credentials_file
        elif self.nkey_seed_file is not None:
            options["nkeys_seed"] = self.nkey_seed_file
        elif address.password is not None:
            options["user"] = address.user
            options["password"] = _once_encrypted(address, context, address.password)
        elif address.user is not None:
            options["token"] = _once_encrypted(address, context, address.user)
        return options


def check_encrypted(address: Address, context: NotingContext) -> None:
    """Make sure that a `tls://` address got an encrypted connection.

    Raises:
        NotEncryptedError: The server offers no TLS.
    """
    if address.requires_tls and not context.is_used:
        raise NotEncryptedError(
            f"NATS at {address.url} offers no TLS. Configure TLS there, or change tls:// to nats:// in cluster.url."
        )


def _once_encrypted(address: Address, context: NotingContext, secret: str) -> Callable[[], str]:
    """Return a function that reveals a secret, unless the connection should be encrypted and is not."""

    def reveal() -> str:
        check_encrypted(address, context)
        return secret

    return reveal


def _check_form(setting: str, path: str | None, form: re.Pattern[bytes], what: str) -> None:
    """Make sure that a file has the form that nats-py expects. It would search forever in a file without a JWT."""
    if path is None:
        return
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        _unusable(setting, path, error)
    if form.search(content) is None:
        raise ConfigurationError(f"{setting}: {path} does not contain {what}.")


def _unusable(setting: str, path: str | None, error: Exception) -> NoReturn:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    raise ConfigurationError(f"{setting}: {path} cannot be used: {reason}.") from error
