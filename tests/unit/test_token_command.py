"""`relay token` and `relay token inspect` as a person uses them: tokens are made and explained, never a traceback."""

import json
import os
from pathlib import Path

import jwt
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from jwt import api_jws

from relay.cli.token import token_command
from relay.vocabulary.errors import UserError
from tests.support.tokens import (
    ED25519_KEY,
    RSA_KEY,
    SECRET,
    claims,
    key_set,
    private_pem,
    public_pem,
    seconds_from_now,
    token,
    write_keys,
)

SETTINGS = {"RELAY_ACCESS_TOKEN_SECRET": SECRET}


def run(*arguments: str, stdin: str | bytes | None = None, **settings: str) -> Result:
    clean: dict[str, str | None] = {name: None for name in os.environ if name.startswith("RELAY_")}
    return CliRunner().invoke(token_command, arguments, input=stdin, env={**clean, **settings})


def make(*arguments: str, **settings: str) -> Result:
    result = run(*arguments, **settings)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1, "standard output has more than the token"
    return result


def test_a_token_says_what_was_asked_for() -> None:
    result = make("--role", "listen", "--session", "ev1", "--valid", "90s", **SETTINGS)
    said = jwt.decode(result.stdout.strip(), SECRET, algorithms=["HS256"], audience="relay", issuer="relay")
    assert (said["role"], said["session"], said["channel"]) == ("listen", "ev1", "*")
    assert said["exp"] - said["iat"] == 90
    assert abs(said["iat"] - seconds_from_now(0)) < 60
    assert jwt.get_unverified_header(result.stdout.strip())["kid"] == "secret"
    assert "expires" in result.stderr


def test_several_roles_sessions_and_channels_and_other_names() -> None:
    options = ("--role", "listen", "--role", "admin", "--session", "a", "--session", "b*", "--channel", "de")
    other = {"RELAY_ACCESS_TOKEN_ISSUER": "me", "RELAY_ACCESS_TOKEN_AUDIENCE": "you"}
    result = make(*options, "--valid", "7d", **SETTINGS, **other)
    said = jwt.decode(result.stdout.strip(), SECRET, algorithms=["HS256"], audience="you", issuer="me")
    assert (said["role"], said["session"], said["channel"]) == (["listen", "admin"], ["a", "b*"], "de")
    assert said["exp"] - said["iat"] == 7 * 86400


@pytest.mark.parametrize(("key", "algorithm"), [(ED25519_KEY, "EdDSA"), (RSA_KEY, "RS256")], ids=["EdDSA", "RS256"])
def test_a_private_key_signs_and_the_public_one_takes_it(tmp_path: Path, key: object, algorithm: str) -> None:
    private, public = tmp_path / "k1.pem", tmp_path / "k1.pub.pem"
    private.write_text(private_pem(key))
    public.write_text(public_pem(key))
    made = make("--role", "broadcast", "--session", "ev1", "--key-file", str(private)).stdout
    assert jwt.get_unverified_header(made.strip()) == {"alg": algorithm, "kid": "k1", "typ": "JWT"}
    result = run("inspect", stdin=made, RELAY_ACCESS_TOKEN_KEY_FILES=str(public))
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "valid:   broadcast: sessions ev1; channels *")


def test_a_key_is_chosen_by_its_id(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(key_set(private=True)))
    several = {"RELAY_ACCESS_TOKEN_KEY_FILES": str(keys), **SETTINGS}
    for key_id in ("set-ed", "set-rsa", "set-shared", "secret"):
        made = make("--role", "listen", "--session", "ev1", "--key-id", key_id, **several).stdout
        assert jwt.get_unverified_header(made.strip())["kid"] == key_id
        assert run("inspect", made, **several).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        ((), SETTINGS, "A token needs --role and --session"),
        (("--role", "listen"), SETTINGS, "A token needs --role and --session"),
        (("--role", "listen", "--session", "ev1"), {}, "There is no key to sign with: the settings have no keys."),
        (
            ("--role", "listen", "--session", "ev1", "--key-id", "x"),
            SETTINGS,
            "no private key with the id 'x'; the ids of the private keys are:",
        ),
        (("--role", "listen", "--session", "x" * 60) + ("--session", "y" * 60) * 60, SETTINGS, "would be longer than"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: tuple[str, ...], settings: dict[str, str], says: str) -> None:
    result = run(*arguments, **settings)
    assert isinstance(result.exception, UserError)
    assert says in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--role", "root", "--session", "ev1"),
        ("--role", "listen", "--session", "ev[1]"),
        ("--role", "listen", "--session", "ev1", "--valid", "forever"),
        ("--role", "listen", "--session", "ev1", "--valid", "0s"),
        ("--role", "listen", "--session", "ev1", "--valid", "9999d"),
    ],
)
def test_an_option_that_can_not_be_is_click_s_sentence(arguments: tuple[str, ...]) -> None:
    result = run(*arguments, **SETTINGS)
    assert result.exit_code == 2
    assert "Error: Invalid value for" in result.stderr
    assert not result.stdout


def test_only_public_halves_and_several_keys_are_mistakes_that_are_named(tmp_path: Path) -> None:
    public = ",".join(write_keys(tmp_path))
    arguments = ("--role", "listen", "--session", "ev1")
    result = run(*arguments, RELAY_ACCESS_TOKEN_KEY_FILES=public)
    assert "the settings have only public keys, with the ids: ed, rsa." in str(result.exception)
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(key_set(private=True)))
    result = run(*arguments, RELAY_ACCESS_TOKEN_KEY_FILES=str(keys))
    assert "Choose one with --key-id: set-ed, set-rsa, set-shared." in str(result.exception)


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (token(), "valid:   listen: sessions ev1; channels *"),
        (token(exp=1), "refused: The token has expired."),
        (token(nbf=2**40), "refused: The token is not valid yet."),
        (
            token(iss="x"),
            "refused: The token's issuer (iss) is not the one that the relay requires. The setting access.t",
        ),
        (
            token(aud="x"),
            "refused: The token's audience (aud) does not include the one that the relay requires. The sett",
        ),
        (token(key="y" * 64), "refused: The token's signature does not match the key that it names."),
        (token(headers={"kid": "z"}), "refused: The token names the key 'z'; the ids of the relay's keys are: secret."),
        (token(algorithm="HS384"), "refused: The token's algorithm is 'HS384'; the key 'secret' is only for HS256."),
        (token(role=None), "refused: The token's claim role is missing."),
        (token(session="\x1b[2J"), r"refused: The token's claim session has '\x1b[2J', which no session can match."),
        (token(exp="soon"), "refused: The token's claim exp must be a number of seconds, not 'soon'."),
        ("nonsense", "refused: This is not a token: a token has three parts, separated by dots."),
        ("", "refused: This is not a token: a token has three parts, separated by dots."),
    ],
)
def test_inspect_says_what_is_wrong(shown: str, says: str) -> None:
    result = run("inspect", stdin=shown, **SETTINGS)
    last = result.stdout.splitlines()[-1]
    assert last.startswith(says)
    assert result.exit_code == (0 if last.startswith("valid") else 1)


def test_inspect_tells_the_claims_in_words() -> None:
    expiry = int(seconds_from_now(3 * 3600 + 60))
    lines = run("inspect", stdin=token(exp=expiry, session=["a", "b"], nbf=0), **SETTINGS).stdout.splitlines()
    told = dict(line.split(":", 1) for line in lines)
    assert told["session"].strip() == "a, b"
    assert told["from"].strip().startswith("1970-01-01 00:00:00 UTC (")
    assert told["expires"].strip().endswith("UTC (in 3 h)")
    assert told["key"].strip() == "secret, HS256 (a key of this relay, from access.token_secret)"


CLAIMS = st.dictionaries(
    st.sampled_from(["role", "session", "channel", "exp", "nbf", "iat", "iss", "aud"]),
    st.none() | st.integers() | st.floats() | st.text("a\n\x1b*", max_size=4) | st.lists(st.integers(), max_size=2),
)


def sign(payload: object) -> bytes:
    return api_jws.encode(json.dumps(payload).encode(), SECRET, headers={"kid": "secret"}).encode()


@given(
    st.binary(max_size=60)
    | CLAIMS.map(lambda changes: sign(claims() | changes))
    | st.lists(CLAIMS, max_size=1).map(sign)
)
def test_inspect_explains_anything_without_a_traceback(shown: bytes) -> None:
    result = run("inspect", stdin=shown, **SETTINGS)
    assert result.exit_code in {0, 1}
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert all(line.isprintable() for line in result.stdout.splitlines())


def test_options_may_stand_before_the_subcommand(tmp_path: Path) -> None:
    key, config, other = tmp_path / "k1.pem", tmp_path / "relay.toml", tmp_path / "other.toml"
    key.write_text(private_pem(ED25519_KEY))
    config.write_text(f'[access]\ntoken_secret = "{SECRET}"\n')
    other.write_text("")
    made = {
        ("--config", str(config)): make("--role", "listen", "--session", "ev1", **SETTINGS).stdout.strip(),
        ("--key-file", str(key)): make("--role", "listen", "--session", "ev1", "--key-file", str(key)).stdout.strip(),
    }
    for options, text in made.items():
        for arguments in ((*options, "inspect", text), ("inspect", *options, text)):
            result = run(*arguments, RELAY_CONFIG=str(other))
            assert result.exit_code == 0, result.output
    behind = ("--config", str(other), "inspect", "--config", str(config), made["--config", str(config)])
    assert run(*behind).exit_code == 0, "what stands behind is the nearer one"
