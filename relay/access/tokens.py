"""Tokens: JSON Web Tokens by PyJWT, the keys that sign and verify them, and the sources of those keys.

Invariants: each key has an id and one algorithm. Only the key that a token names verifies it, with that key's
algorithm, whatever else the token says. The only algorithms are HS256, RS256 and EdDSA with Ed25519. No error text
contains any part of a key or of a token's signature.

Source: RFC 7519, RFC 7517, and RFC 8725 for what must not be done.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from jwt.algorithms import HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from relay.access.grants import MAX_TOKEN_CHARACTERS, Grant, Reason, RefusedError, read_claims
from relay.vocabulary.errors import ConfigurationError
from relay.vocabulary.text import quoted

SECRET_KEY_ID = "secret"  # noqa: S105 - the id of a key, not a key
"""The id of the key in the setting `access.token_secret`."""

MIN_SECRET_BYTES = 32
"""RFC 7518 section 3.2: the key is at least as long as the hash."""

MIN_RSA_BITS = 2048
"""RFC 7518 section 3.3."""

_ALGORITHMS = {"oct": "HS256", "RSA": "RS256", "OKP": "EdDSA"}
_PUBLIC_MEMBERS = {"oct": ("k", "kty"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
"""The members that identify a key, RFC 7638 section 3.2."""

_KEY_ID = re.compile(r"[A-Za-z0-9._~:/+=-]{1,128}", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", re.ASCII)

_REFUSALS: Mapping[type[jwt.PyJWTError], tuple[Reason, str]] = {
    jwt.InvalidSignatureError: (Reason.SIGNATURE, "The token's signature does not match the key that it names."),
    jwt.InvalidAlgorithmError: (Reason.ALGORITHM, "The token's algorithm is not that of the key that it names."),
    jwt.InvalidIssuerError: (Reason.ISSUER, "The token's issuer (iss) is not the one that the relay requires."),
    jwt.InvalidAudienceError: (
        Reason.AUDIENCE,
        "The token's audience (aud) does not include the one that the relay requires.",
    ),
    jwt.MissingRequiredClaimError: (Reason.CLAIMS, "The token lacks one of the claims exp, iss and aud."),
}


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One key.

    Attributes:
        key_id: Its `kid`.
        algorithm: The only algorithm that it is used with.
        origin: The setting or file that contains it, for messages.
        fingerprint: Distinguishes it from another key with the same id.
        verifying: Verifies signatures.
        signing: Signs; None if the key cannot.
    """

    key_id: str
    algorithm: str
    origin: str
    fingerprint: str
    verifying: jwt.PyJWK = field(repr=False)
    signing: jwt.PyJWK | None = field(repr=False)


class TokenVerifier:
    """Verifies tokens.

    Attributes:
        sources: The sources of the grants that it returns, while its keys and terms are in force.
    """

    def __init__(self, keys: Sequence[TokenKey], issuer: str, audience: str) -> None:
        """Accept `keys` and no others.

        Raises:
            ConfigurationError: Two keys have the same id.
        """
        self._keys: dict[str, TokenKey] = {}
        for key in keys:
            other = self._keys.setdefault(key.key_id, key)
            if other is not key:
                raise ConfigurationError(
                    f"Two token keys have the id {key.key_id!a}: one from {other.origin}, one from {key.origin}. "
                    "Give one of them another id."
                )
        self._issuer = issuer
        self._audience = audience
        self.sources = frozenset(map(self._source, keys))

    def find_key(self, token: str) -> TokenKey:
        """Return the key that a token names.

        Raises:
            RefusedError: It is no token, or names no accepted key or another algorithm than that key's.
        """
        header = read_header(token)
        key_id = header.get("kid")
        key = self._keys.get(key_id) if isinstance(key_id, str) else None
        if key is None:
            named = "names no key" if key_id is None else f"names the key {quoted(key_id)}"
            known = ", ".join(self._keys) or "none"
            raise RefusedError(Reason.KEY_ID, f"The token {named}; the ids of the relay's keys are: {known}.")
        if header.get("alg") != key.algorithm:
            raise RefusedError(
                Reason.ALGORITHM,
                f"The token's algorithm is {quoted(header.get('alg'))}; the key {key.key_id!a} is only for "
                f"{key.algorithm}.",
            )
        return key

    def verify(self, token: str) -> Grant:
        """Return what a token permits. The caller checks the time.

        Raises:
            RefusedError: The token is not from one of these keys, or not for this relay.
        """
        key = self.find_key(token)
        try:
            claims = jwt.decode(
                token,
                key.verifying,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                # `Grant.check_time` checks times, now and later, by one rule.
                options={
                    "require": ["exp", "iss", "aud"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.PyJWTError as error:
            reason, detail = _REFUSALS.get(type(error), (Reason.MALFORMED, "This is not a token."))
            raise RefusedError(reason, detail) from error
        return read_claims(claims, self._source(key))

    def _source(self, key: TokenKey) -> tuple[str, str, str, str]:
        return key.key_id, key.fingerprint, self._issuer, self._audience


def read_header(token: str) -> dict[str, Any]:
    """Return the header of a token, unverified.

    Raises:
        RefusedError: It has none.
    """
    if len(token) > MAX_TOKEN_CHARACTERS or _TOKEN.fullmatch(token) is None:
        raise RefusedError(Reason.MALFORMED, "This is not a token: a token has three parts, separated by dots.")
    try:
        return jwt.get_unverified_header(token)
    except (jwt.PyJWTError, RecursionError) as error:
        raise RefusedError(
            Reason.MALFORMED, "This is not a token: its header, the first part, cannot be read."
        ) from error


def read_unverified_claims(token: str) -> dict[str, Any]:
    """Return a token's claims for an explanation. They are unverified and may be false.

    Raises:
        RefusedError: They cannot be read.
    """
    read_header(token)
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, RecursionError) as error:
        raise RefusedError(
            Reason.MALFORMED, "This is not a token: its claims, the second part, cannot be read."
        ) from error
    return claims


def make_token(key: TokenKey, claims: Mapping[str, object]) -> str:
    """Sign `claims` with a key that has a signing part."""
    assert key.signing is not None  # noqa: S101 - the caller chose a signing key
    return jwt.encode(dict(claims), key.signing, algorithm=key.algorithm, headers={"kid": key.key_id})


def read_secret(secret: str, origin: str) -> TokenKey:
    """Return the key that is a shared secret."""
    return _read_jwk({**HMACAlgorithm.to_jwk(secret.encode(), as_dict=True), "kid": SECRET_KEY_ID}, origin)


def read_key_file(path: Path) -> list[TokenKey]:
    """Read a file with one key as PEM, or with several as a JWK Set.

    Raises:
        ConfigurationError: The file cannot be read, or has an unusable key. The message does not show the key.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is not a key file: it is neither PEM nor JWKS, because it is not text."
        ) from error
    if text.lstrip().startswith("-----BEGIN"):
        key_id = path.name.partition(".")[0]
        if _KEY_ID.fullmatch(key_id) is None:
            raise ConfigurationError(
                f"{path} has a name that cannot be a key's id. The id of a PEM key is the file's name up to its first "
                "dot: 1 to 128 of the characters A-Z a-z 0-9 . _ ~ : / + = -. Rename the file."
            )
        return [_read_jwk({**_read_pem(text, path), "kid": key_id}, str(path))]
    if text.lstrip().startswith("{"):
        return _read_key_set(text, path)
    raise ConfigurationError(f"{path} is neither PEM (-----BEGIN …) nor JWKS (an object with keys).")


def _read_pem(text: str, path: Path) -> dict[str, Any]:
    try:
        return RSAAlgorithm.to_jwk(RSAAlgorithm(RSAAlgorithm.SHA256).prepare_key(text), as_dict=True)
    except (ValueError, TypeError, jwt.PyJWTError):
        pass
    try:
        return OKPAlgorithm.to_jwk(OKPAlgorithm().prepare_key(text), as_dict=True)
    except (ValueError, TypeError, jwt.PyJWTError):
        # The library's message may quote the key.
        raise ConfigurationError(
            f"{path} has no usable key: it must be an Ed25519 or RSA key in PEM, without a password."
        ) from None


def _read_key_set(text: str, path: Path) -> list[TokenKey]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{path} is not a key file: it is not valid JSON.") from None
    keys = document.get("keys", [document] if "kty" in document else None)
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ConfigurationError(f'{path} is not a JWK Set: it must be an object whose "keys" is a list of objects.')
    signing = [key for key in keys if key.get("use", "sig") == "sig"]
    if not signing:
        raise ConfigurationError(f'{path} has no key for signatures, with "use": "sig" or without "use".')
    return [_read_jwk(key, str(path)) for key in signing]


def _read_jwk(members: Mapping[str, Any], origin: str) -> TokenKey:
    key_id, kind = members.get("kid"), members.get("kty")
    if not isinstance(key_id, str) or _KEY_ID.fullmatch(key_id) is None:
        raise ConfigurationError(
            f'{origin} has a key without a valid id: its "kid" must be 1 to 128 of the characters '
            "A-Z a-z 0-9 . _ ~ : / + = -."
        )
    algorithm = _ALGORITHMS.get(kind) if isinstance(kind, str) else None
    if algorithm is None or members.get("alg", algorithm) != algorithm or members.get("crv", "Ed25519") != "Ed25519":
        raise ConfigurationError(
            f"The key {key_id} in {origin} is not for HS256, RS256 or EdDSA with Ed25519, the only algorithms that the "
            "relay accepts."
        )
    identity = {name: members.get(name) for name in _PUBLIC_MEMBERS[str(kind)]}
    try:
        verifying = jwt.PyJWK(identity, algorithm)
        signing = jwt.PyJWK(dict(members), algorithm) if kind == "oct" or "d" in members else None
    except (ValueError, TypeError, KeyError, AttributeError, jwt.PyJWTError):
        raise ConfigurationError(f"The key {key_id} in {origin} is damaged; replace it.") from None
    if _strength(verifying) < 1:
        raise ConfigurationError(
            f"The key {key_id} in {origin} is too weak: a secret needs at least {MIN_SECRET_BYTES} bytes, an RSA key "
            f"{MIN_RSA_BITS} bits."
        )
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return TokenKey(key_id, algorithm, origin, fingerprint, verifying, signing)


def _strength(key: jwt.PyJWK) -> float:
    """Return the strength of a key. 1 is enough."""
    if key.key_type == "oct":
        return len(key.key) / MIN_SECRET_BYTES
    return key.key.key_size / MIN_RSA_BITS if key.key_type == "RSA" else math.inf
