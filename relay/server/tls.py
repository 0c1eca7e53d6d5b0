"""The relay's own TLS: its certificate and key, and how both are replaced while the relay runs.

Invariants: TLS 1.2 is the minimum. An unusable pair never replaces a usable one. Each pair has a context of its own,
because OpenSSL keeps one certificate for each type of key, and clients might choose an old one.
"""

import asyncio
import ssl

from relay.settings.settings import ServerSettings
from relay.vocabulary.errors import ConfigurationError


def make_tls(settings: ServerSettings) -> ssl.SSLContext | None:
    """Return the server's TLS context. None if no certificate is configured.

    Raises:
        ConfigurationError: The certificate and key are unusable. The text says why.
    """
    if settings.tls_certificate is None and settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, settings)
    return context


def renew_tls(present: ssl.SSLContext | None, settings: ServerSettings) -> ssl.SSLContext | None:
    """Read certificate and key again, and return the TLS context for new connections in place of the present one.

    Raises:
        ConfigurationError: They are unusable, or TLS would have to be turned on or off while the relay runs.
    """
    renewed = make_tls(settings)
    if (renewed is None) is not (present is None):
        raise ConfigurationError(
            "server.tls_certificate cannot be set or unset while the relay runs; restart the relay."
        )
    return renewed


def bound_tls_buffers(transport: asyncio.Transport) -> None:
    """Make the transport of a TLS connection report when its socket accepts no more. Other transports stay unchanged.

    Below TLS lies the socket's transport, which silently buffers another 64 KiB and which no event loop exposes. In
    asyncio it is found by its private name. Where that fails, as in uvloop, those bytes remain.
    """
    if transport.get_extra_info("ssl_object") is None:
        return
    # Not 0: asyncio's TLS pauses at the limit, not above it, so with 0 it would pause forever.
    transport.set_write_buffer_limits(high=1, low=0)
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    if isinstance(below, asyncio.Transport):
        below.set_write_buffer_limits(0)


def _load(context: ssl.SSLContext, settings: ServerSettings) -> None:
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        given, missing = ("tls_certificate", "tls_key") if key is None else ("tls_key", "tls_certificate")
        raise ConfigurationError(f"server.{given} is set, but server.{missing} is not; set both for TLS, or neither.")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        said = error.reason and error.reason.lower().replace("_", " ")
        reason = said or "one is not PEM, or they are swapped"
        raise ConfigurationError(
            f"server.tls_certificate {certificate} and server.tls_key {key} must be a certificate and its private key, "
            f"in PEM: {reason}."
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"server.tls_certificate {certificate} or server.tls_key {key} cannot be read: {error.strerror}."
        ) from error


def _no_password() -> str:
    raise ConfigurationError(
        "server.tls_key is encrypted, and the relay has no password for it; use a key file without a password."
    )
