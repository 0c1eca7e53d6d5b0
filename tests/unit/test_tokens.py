"""Tokens with real keys: what is accepted, each kind of forgery, and files of keys."""

import base64
import hashlib
import hmac
import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given
from hypothesis import strategies as st

from relay.access.grants import Reason, RefusedError, TokenRole
from relay.access.tokens import (
    TokenVerifier,
    make_token,
    read_header,
    read_key_file,
    read_secret,
    read_unverified_claims,
)
from relay.vocabulary.errors import ConfigurationError
from tests.support.tokens import (
    ED25519_KEY,
    RSA_KEY,
    SECRET,
    SET_SECRET,
    claims,
    key_set,
    private_pem,
    public_pem,
    token,
    write_keys,
)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> TokenVerifier:
    folder = tmp_path_factory.mktemp("keys")
    keys = [key for path in write_keys(folder) for key in read_key_file(Path(path))]
    return TokenVerifier([*keys, read_secret(SECRET, "test")], "relay", "relay")


def refusal(verifier: TokenVerifier, forged: str) -> Reason:
    with pytest.raises(RefusedError) as caught:
        verifier.verify(forged)
    assert caught.value.detail.isprintable()
    return caught.value.reason


@pytest.mark.parametrize(
    ("key_id", "key", "algorithm"),
    [("secret", SECRET, "HS256"), ("ed", ED25519_KEY, "EdDSA"), ("rsa", RSA_KEY, "RS256")],
)
def test_each_algorithm(verifier: TokenVerifier, key_id: str, key: Any, algorithm: str) -> None:
    made = token(
        key=key, algorithm=algorithm, headers={"kid": key_id}, role=["listen", "broadcast"], channel=["de"], exp=2**33
    )
    grant = verifier.verify(made)
    assert grant.roles == {TokenRole.LISTEN, TokenRole.BROADCAST}
    assert (grant.sessions, grant.channels) == (("ev1",), ("de",))
    assert grant.source in verifier.sources
    assert grant.expires_at == 2**33


def encode(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def hs256(header: dict[str, Any], secret: bytes) -> str:
    """Return a token signed with HS256 as a forger makes it. A library would refuse to."""
    signed = f"{encode(header)}.{encode(claims())}"
    signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


PUBLIC_KEY_AS_TEXT = public_pem(RSA_KEY).encode()


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        pytest.param(f"{encode({'alg': 'none', 'kid': 'secret'})}.{encode(claims())}.", Reason.ALGORITHM, id="none"),
        pytest.param(f"{encode({'alg': 'None', 'kid': 'ed'})}.{encode(claims())}.", Reason.ALGORITHM, id="None"),
        pytest.param(f"{encode({'kid': 'ed'})}.{encode(claims())}.", Reason.ALGORITHM, id="no algorithm"),
        pytest.param(
            hs256({"alg": "HS256", "kid": "rsa"}, PUBLIC_KEY_AS_TEXT), Reason.ALGORITHM, id="public key as the secret"
        ),
        pytest.param(
            hs256({"alg": "HS256", "kid": "secret"}, PUBLIC_KEY_AS_TEXT), Reason.SIGNATURE, id="public key as another"
        ),
        pytest.param(token(headers={"kid": "rsa"}), Reason.ALGORITHM, id="id of another key"),
        pytest.param(token(algorithm="HS512"), Reason.ALGORITHM, id="another algorithm of the right secret"),
        pytest.param(
            token(key=RSA_KEY, algorithm="PS256", headers={"kid": "rsa"}), Reason.ALGORITHM, id="PS256 by the right key"
        ),
        pytest.param(
            token(key=rsa.generate_private_key(65537, 2048), algorithm="RS256", headers={"kid": "rsa"}),
            Reason.SIGNATURE,
            id="somebody else's key",
        ),
        pytest.param(hs256({"alg": "HS256", "kid": None}, SECRET.encode()), Reason.MALFORMED, id="key id null"),
        pytest.param(hs256({"alg": "HS256"}, SECRET.encode()), Reason.KEY_ID, id="no key id"),
        pytest.param(hs256({"alg": "HS256", "kid": ["secret"]}, SECRET.encode()), Reason.MALFORMED, id="key id a list"),
        pytest.param(token(headers={"kid": "../../dev/null"}), Reason.KEY_ID, id="key id a path"),
        pytest.param(token(headers={"kid": "' or 1=1"}), Reason.KEY_ID, id="key id SQL"),
        pytest.param(
            hs256({"alg": "HS256", "kid": "forged", "jwk": {"kty": "oct", "k": encode("x"), "kid": "forged"}}, b'"x"'),
            Reason.KEY_ID,
            id="key in the header",
        ),
        pytest.param(
            token(key="x" * 40, headers={"jku": "https://evil.example/keys.json", "x5u": "https://evil.example/c"}),
            Reason.SIGNATURE,
            id="address of keys in the header",
        ),
        pytest.param(token(headers={"crit": ["exp2"]}), Reason.MALFORMED, id="unknown critical header"),
        pytest.param(token().rsplit(".", 1)[0] + ".", Reason.SIGNATURE, id="signature taken away"),
        pytest.param(
            ".".join([token().split(".")[0], encode(claims(role="admin")), token().split(".")[2]]),
            Reason.SIGNATURE,
            id="other claims under the signature",
        ),
        pytest.param(token(aud="another relay"), Reason.AUDIENCE, id="for another relay"),
        pytest.param(token(aud=None), Reason.CLAIMS, id="without audience"),
        pytest.param(token(aud={"relay": 1}), Reason.AUDIENCE, id="audience an object"),
        pytest.param(token(iss="somebody"), Reason.ISSUER, id="by another issuer"),
        pytest.param(token(iss=None), Reason.CLAIMS, id="without issuer"),
        pytest.param(token(iss="rel"), Reason.ISSUER, id="issuer a part of the right one"),
        pytest.param(token(exp=None), Reason.CLAIMS, id="without an end"),
        pytest.param(token(exp="never"), Reason.CLAIMS, id="end a text"),
        pytest.param(token(exp=True), Reason.CLAIMS, id="end a boolean"),
        pytest.param(token(exp=float("inf")), Reason.CLAIMS, id="end infinite"),
        pytest.param(token(exp=float("nan")), Reason.CLAIMS, id="end not a number"),
        pytest.param(token(exp=10**400), Reason.CLAIMS, id="end beyond numbers"),
        pytest.param(token(nbf="soon"), Reason.CLAIMS, id="beginning a text"),
        pytest.param(token(role=None), Reason.CLAIMS, id="token of another kind without a role"),
        pytest.param(token(role="root"), Reason.CLAIMS, id="role that does not exist"),
        pytest.param(token(role=["listen", "root"]), Reason.CLAIMS, id="one role that does not exist"),
        pytest.param(token(role=[]), Reason.CLAIMS, id="no roles"),
        pytest.param(token(session=None), Reason.CLAIMS, id="without session"),
        pytest.param(token(channel=None), Reason.CLAIMS, id="without channel"),
        pytest.param(token(session="ev[12]"), Reason.CLAIMS, id="pattern that is none"),
        pytest.param(token(session=["ev1"] * 65), Reason.CLAIMS, id="too many patterns"),
        pytest.param(f"{token()}.{encode({})}.x", Reason.MALFORMED, id="five parts as of an encrypted one"),
        pytest.param(token(note="x" * 4000), Reason.MALFORMED, id="too long"),
        pytest.param(f"{'W' * 4000}.e30.x", Reason.MALFORMED, id="header of nested lists"),
        pytest.param("", Reason.MALFORMED, id="nothing"),
        pytest.param("..", Reason.MALFORMED, id="dots"),
        pytest.param("a.b.\udcff", Reason.MALFORMED, id="not ASCII"),
    ],
)
def test_token_confusion(verifier: TokenVerifier, forged: str, reason: Reason) -> None:
    assert refusal(verifier, forged) is reason


def test_token_confusion_detached_payload(verifier: TokenVerifier) -> None:
    header = {"alg": "HS256", "kid": "secret", "b64": False, "crit": ["b64"]}
    assert refusal(verifier, hs256(header, SECRET.encode())) is Reason.MALFORMED


@given(
    st.text(max_size=60)
    | st.from_regex(r"[A-Za-z0-9_-]{1,60}\.[A-Za-z0-9_-]{1,60}\.[A-Za-z0-9_-]{0,9}", fullmatch=True)
)
def test_any_text_is_a_token_or_refused(text: str) -> None:
    verifier = TokenVerifier([read_secret(SECRET, "test")], "relay", "relay")
    for read in (verifier.verify, read_header, read_unverified_claims):
        try:
            read(text)
        except RefusedError as error:
            assert error.detail.isprintable()


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_header_and_claims_are_a_token_or_refused(header: bytes, payload: bytes) -> None:
    verifier = TokenVerifier([read_secret(SECRET, "test")], "relay", "relay")
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, payload, b"")]
    with pytest.raises(RefusedError):
        verifier.verify(".".join(parts))


@pytest.mark.parametrize("content", [json.dumps(key_set(private=False)), public_pem(ED25519_KEY)])
def test_a_key_file_may_begin_with_a_byte_order_mark(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key.pem"
    path.write_text(content, encoding="utf-8")
    expected = [key.fingerprint for key in read_key_file(path)]
    path.write_text(content, encoding="utf-8-sig")
    assert [key.fingerprint for key in read_key_file(path)] == expected


def test_key_set(tmp_path: Path) -> None:
    for private in (False, True):
        path = tmp_path / "keys.json"
        path.write_text(json.dumps(key_set(private=private)))
        keys = read_key_file(path)
        assert [(key.key_id, key.algorithm) for key in keys] == [
            ("set-ed", "EdDSA"),
            ("set-rsa", "RS256"),
            ("set-shared", "HS256"),
        ]
        assert [key.signing is not None for key in keys] == [private, private, True]
        verifier = TokenVerifier(keys, "relay", "relay")
        for key_id, key, algorithm in (
            ("set-ed", ED25519_KEY, "EdDSA"),
            ("set-rsa", RSA_KEY, "RS256"),
            ("set-shared", SET_SECRET, "HS256"),
        ):
            verifier.verify(token(key=key, algorithm=algorithm, headers={"kid": key_id}))


@pytest.mark.parametrize("key", [ED25519_KEY, RSA_KEY], ids=["EdDSA", "RS256"])
def test_what_the_private_file_signs_the_public_one_verifies(tmp_path: Path, key: Any) -> None:
    for name, text in (("k1.pem", private_pem(key)), ("k1.pub.pem", public_pem(key))):
        (tmp_path / name).write_text(text)
    (private,) = read_key_file(tmp_path / "k1.pem")
    (public,) = read_key_file(tmp_path / "k1.pub.pem")
    assert (private.key_id, public.key_id) == ("k1", "k1")
    assert private.fingerprint == public.fingerprint
    assert public.signing is None
    TokenVerifier([public], "relay", "relay").verify(make_token(private, claims()))


def test_a_key_of_the_same_id_is_another_source() -> None:
    one, other = (TokenVerifier([read_secret(text * 8, "test")], "relay", "relay") for text in ("abcd-", "efgh-"))
    renamed = TokenVerifier([read_secret("abcd-" * 8, "test")], "relay", "another")
    assert not one.sources & other.sources
    assert not one.sources & renamed.sources
    with pytest.raises(ConfigurationError, match="Two token keys have the id 'secret'"):
        TokenVerifier([read_secret("abcd-" * 8, "one"), read_secret("efgh-" * 8, "two")], "relay", "relay")


WEAK_KEY = rsa.generate_private_key(65537, 1024)  # noqa: S505 - it must be refused
SHORT = "dG9vIHNob3J0IGEgc2VjcmV0"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.pem", None, "cannot be read: No such file or directory"),
        ("k.pem", b"\xff\xfe", "it is neither PEM nor JWKS, because it is not text"),
        ("k.pem", b"hunter2-hunter2", "is neither PEM (-----BEGIN …) nor JWKS"),
        (
            "k.pem",
            b"-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n",
            "it must be an Ed25519 or RSA key",
        ),
        ("k.pem", private_pem(ec.generate_private_key(ec.SECP256R1())).encode(), "it must be an Ed25519 or RSA key"),
        (
            "k.pem",
            private_pem(ed448.Ed448PrivateKey.generate()).encode(),
            "is not for HS256, RS256 or EdDSA with Ed25519",
        ),
        ("k.pem", private_pem(WEAK_KEY).encode(), "is too weak"),
        ("my key.pem", private_pem(ED25519_KEY).encode(), "Rename the file"),
        ("k.json", b'{"keys": hunter2}', "is not valid JSON"),
        ("k.json", b'{"keys": {}}', "is not a JWK Set"),
        ("k.json", b'{"keys": ["hunter2"]}', "is not a JWK Set"),
        ("k.json", b'{"keys": []}', "has no key for signatures"),
        ("k.json", b"{" * 100_000, "is not valid JSON"),
        ("k.json", b'{"kty": "oct", "k": "hunter2"}', "has a key without a valid id"),
        ("k.json", b'{"kty": "oct", "k": "hunter2", "kid": "a\\nb"}', "has a key without a valid id"),
        ("k.json", f'{{"kty": "oct", "k": "{SHORT}", "kid": "a"}}'.encode(), "is too weak"),
        ("k.json", f'{{"kty": "oct", "k": "{SHORT}", "kid": "a", "alg": "HS512"}}'.encode(), "is not for HS256"),
        ("k.json", b'{"kty": "oct", "kid": "a", "k": 5}', "is damaged"),
        ("k.json", b'{"kty": "OKP", "crv": "Ed25519", "x": "hunter2", "kid": "a"}', "is damaged"),
        ("k.json", b'{"kty": "RSA", "n": "hunter2", "kid": "a"}', "is damaged"),
        ("k.json", b'{"kty": "EC", "crv": "P-256", "kid": "a"}', "is not for HS256"),
    ],
)
def test_a_file_that_is_no_key_is_one_sentence_without_its_content(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_key_file(path)
    sentence = str(caught.value)
    assert says in sentence
    assert str(path) in sentence
    assert "\n" not in sentence
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert SHORT not in sentence


def test_no_text_of_a_key_shows_it() -> None:
    assert SECRET not in repr(read_secret(SECRET, "test"))
    assert "Key(" in repr(read_secret(SECRET, "test"))
