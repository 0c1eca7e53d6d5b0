"""TLS certificates for tests, generated on demand."""

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate for 127.0.0.1 and localhost, and its key.

    Attributes:
        certificate: Path of the PEM file.
        key: Path of the PEM file.
        serial: The serial number.
    """

    certificate: Path
    key: Path
    serial: int

    @property
    def trusting(self) -> ssl.SSLContext:
        """Return a client context that trusts only this certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))


class KeyType(StrEnum):
    """The types of keys that certificate authorities accept."""

    ECDSA = "ecdsa"
    RSA = "rsa"

    def generate(self) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
        """Return a new key of this type."""
        if self is KeyType.RSA:
            return rsa.generate_private_key(65537, 2048)
        return ec.generate_private_key(ec.SECP256R1())


def make_certificate(directory: Path, name: str = "relay", key_type: KeyType = KeyType.ECDSA) -> Certificate:
    """Create a certificate as `NAME.pem` and `NAME.key`, and replace existing files of those names."""
    key = key_type.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay test")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key", certificate.serial_number)
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    made.key.write_bytes(key.private_bytes(*form))
    return made
