"""Certificates and keys that cannot be used."""

from pathlib import Path

import pytest

from relay.server.tls import make_tls
from relay.settings.settings import ServerSettings
from relay.vocabulary.errors import ConfigurationError
from tests.support.certificates import make_certificate


@pytest.mark.parametrize("certificate", ["relay.key", "text.pem"])
def test_what_is_no_certificate_is_said_in_words(tmp_path: Path, certificate: str) -> None:
    made = make_certificate(tmp_path)
    (tmp_path / "text.pem").write_text("hello")
    wrong = tmp_path / certificate
    with pytest.raises(ConfigurationError) as refusal:
        make_tls(ServerSettings(tls_certificate=str(wrong), tls_key=str(made.certificate)))
    files = f"server.tls_certificate {wrong} and server.tls_key {made.certificate}"
    why = "one is not PEM, or they are swapped"
    assert str(refusal.value) == f"{files} must be a certificate and its private key, in PEM: {why}."
