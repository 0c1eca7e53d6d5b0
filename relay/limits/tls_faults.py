"""Classify failed TLS handshakes, by OpenSSL's name of the reason, into a few kinds that an operator can act on."""

import re
from enum import StrEnum


class TlsFault(StrEnum):
    """Why a TLS handshake failed. The value is its name in the log and in the metrics."""

    PLAIN_HTTP = "plain_http"
    NOT_TLS = "not_tls"
    TLS_VERSION = "tls_version"
    TLS_CIPHER = "tls_cipher"
    CERTIFICATE_REFUSED = "certificate_refused"
    TLS_LEFT = "tls_left"
    """The client closed the connection without an alert. Load balancers do so to check that the port is open."""
    TLS_OTHER = "tls_other"


_KINDS = (
    ("HTTP_REQUEST|HTTPS_PROXY_REQUEST", TlsFault.PLAIN_HTTP),
    ("ALERT_.*CERT|ALERT_UNKNOWN_CA", TlsFault.CERTIFICATE_REFUSED),
    ("UNSUPPORTED_PROTOCOL|PROTOCOL_VERSION|VERSION_TOO_(LOW|HIGH)", TlsFault.TLS_VERSION),
    ("NO_SHARED_|NO_SUITABLE_|HANDSHAKE_FAILURE|INSUFFICIENT_SECURITY", TlsFault.TLS_CIPHER),
    ("WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|PACKET_LENGTH_TOO_LONG|UNEXPECTED_MESSAGE", TlsFault.NOT_TLS),
)


def read_tls_fault(reason: str) -> TlsFault:
    """Classify OpenSSL's name of a reason, such as `NO_SHARED_CIPHER`. Alerts come from the client."""
    return next((fault for names, fault in _KINDS if re.search(names, reason)), TlsFault.TLS_OTHER)
