"""Keys and tokens for tests, made directly with PyJWT and cryptography, not with the code under test."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

SECRET = "a shared secret of tests that is long enough even for the longest hash".replace(" ", "-")

ED25519_KEY = ed25519.Ed25519PrivateKey.generate()
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def seconds_from_now(seconds: float) -> float:
    """Return a time of day in the format of a token's claims."""
    return time.time() + seconds  # noqa: TID251 - tokens carry the time of day


def claims(**changes: Any) -> dict[str, Any]:
    """Return valid claims to listen to all channels of ev1, with changes; None removes a claim."""
    now = int(seconds_from_now(0))
    right = {"iss": "relay", "aud": "relay", "iat": now, "exp": now + 3600}
    right |= {"role": "listen", "session": "ev1", "channel": "*"}
    return {name: value for name, value in (right | changes).items() if value is not None}


def token(*, key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    """Sign `claims(**changes)`, by default with the shared secret."""
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers={"kid": "secret", **(headers or {})})


def private_pem(key: Any) -> str:
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text.decode()


def public_pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def write_keys(folder: Path) -> list[str]:
    """Write the public keys `ed.pub.pem` and `rsa.pub.pem`, and return their paths."""
    paths = []
    for name, key in (("ed", ED25519_KEY), ("rsa", RSA_KEY)):
        path = folder / f"{name}.pub.pem"
        path.write_text(public_pem(key))
        paths.append(str(path))
    return paths


def key_set(*, private: bool = False) -> dict[str, Any]:
    """Return a JWK Set with an Ed25519, an RSA and a shared key, and an encryption key that the relay must ignore."""
    ed, large = (ED25519_KEY, RSA_KEY) if private else (ED25519_KEY.public_key(), RSA_KEY.public_key())
    return {
        "keys": [
            {**json.loads(OKPAlgorithm.to_jwk(ed)), "kid": "set-ed", "use": "sig", "alg": "EdDSA"},
            {**json.loads(RSAAlgorithm.to_jwk(large)), "kid": "set-rsa"},
            {"kty": "oct", "k": "c2hhcmVkIHNoYXJlZCBzaGFyZWQgc2hhcmVkIHNoYXJlZA", "kid": "set-shared", "alg": "HS256"},
            {"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "kid": "encryption", "use": "enc"},
        ]
    }


SET_SECRET = b"shared shared shared shared shared"
