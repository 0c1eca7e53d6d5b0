"""How a node connects to NATS: which addresses, with which secrets, and what it says about unusable settings."""

from pathlib import Path
from typing import Any

import nkeys
import pytest

from relay.cluster.nats_login import Address, Login, NotEncryptedError
from relay.settings.settings import ClusterSettings
from relay.vocabulary.errors import ConfigurationError
from tests.support.certificates import make_certificate

SEED = b"SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"


def login(**settings: Any) -> Login:
    return Login.read(ClusterSettings(**{"url": "nats://127.0.0.1", **settings}), "node")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("nats://host", Address("nats://host:4222", None, None, requires_tls=False)),
        ("tls://[::1]:5", Address("tls://[::1]:5", None, None, requires_tls=True)),
        ("nats://u:p%40ss@host:1", Address("nats://host:1", "u", "p@ss", requires_tls=False)),
        ("nats://token@host", Address("nats://host:4222", "token", None, requires_tls=False)),
    ],
)
def test_an_address_has_a_server_and_perhaps_a_secret(text: str, address: Address) -> None:
    assert Address.read(text) == address


def test_several_addresses_are_shown_without_their_secrets() -> None:
    several = login(url="nats://u:secret@a:1, tls://secret@b")
    assert several.shown == "nats://a:1, tls://b:4222"


def test_a_password_is_revealed_only_to_an_encrypted_connection() -> None:
    secret = login(url="tls://u:secret@a")
    context = secret.make_context()
    options: dict[str, Any] = secret.options(secret.addresses[0], context)
    assert options["user"] == "u"
    with pytest.raises(NotEncryptedError, match="NATS at tls://a:4222 offers no TLS"):
        options["password"]()
    context.is_used = True
    assert options["password"]() == "secret"


def test_a_password_is_revealed_without_encryption_where_nobody_asked_for_it() -> None:
    plain = login(url="nats://u:secret@a")
    options: dict[str, Any] = plain.options(plain.addresses[0], plain.make_context())
    assert options["password"]() == "secret"


def test_the_files_of_nsc_are_accepted(tmp_path: Path) -> None:
    nkeys.from_seed(bytearray(SEED))
    seed, credentials = tmp_path / "seed.nk", tmp_path / "user.creds"
    seed.write_bytes(SEED + b"\n")
    credentials.write_bytes(
        b"-----BEGIN NATS USER JWT-----\neyJ0.eyJq.UvIm-_8\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n"
        b"-----BEGIN USER NKEY SEED-----\n" + SEED + b"\n------END USER NKEY SEED------\n"
    )
    assert login(nkey_seed_file=str(seed)).nkey_seed_file == str(seed)
    assert login(credentials_file=str(credentials)).credentials_file == str(credentials)


def test_unusable_settings_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    pair = make_certificate(tmp_path)
    other = make_certificate(tmp_path, "other")
    for settings, sentence in (
        ({"credentials_file": str(empty)}, f"cluster.credentials_file: {empty} does not contain credentials"),
        ({"nkey_seed_file": str(empty)}, f"cluster.nkey_seed_file: {empty} does not contain the NKey seed"),
        ({"nkey_seed_file": "/missing"}, "cluster.nkey_seed_file: /missing cannot be used: No such file or directory."),
        ({"tls_ca_file": "/missing"}, "cluster.tls_ca_file: /missing cannot be used: No such file or directory."),
        ({"tls_ca_file": str(empty)}, f"cluster.tls_ca_file: {empty} cannot be used"),
        ({"tls_key": str(pair.key)}, "cluster.tls_key needs cluster.tls_certificate."),
        (
            {"tls_certificate": str(pair.certificate), "tls_key": str(other.key)},
            f"cluster.tls_certificate: {pair.certificate} cannot be used",
        ),
        ({"credentials_file": "a", "nkey_seed_file": "b"}, "cluster.nkey_seed_file exclude each other"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            login(**settings)
        assert sentence in str(refused.value)
