"""Access rules alone, with a manual clock and without keys or sockets."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.access.grants import Grant, Reason, RefusedError, TokenRole, matches, read_claims
from relay.access.rules import Access, AccessRules
from relay.vocabulary.errors import TokenExpiredError
from relay.vocabulary.names import ChannelAddress
from relay.vocabulary.origins import check_allowed_origin, is_allowed_origin, is_own_host

EV1 = ChannelAddress("ev1")
NOW = 1_000_000.0


class FakeVerifier:
    """Accepts a token if its text is one of `keys`. The token allows listening to ev1."""

    def __init__(self, *keys: str, expires_at: float = NOW + 60, not_before: float = -math.inf) -> None:
        self.sources = frozenset(keys)
        self._times = (not_before, expires_at)

    def verify(self, token: str) -> Grant:
        if token not in self.sources:
            raise RefusedError(Reason.SIGNATURE, "no")
        return Grant(frozenset({TokenRole.LISTEN}), ("ev1",), ("*",), token, *self._times)


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def access_of(rules: AccessRules) -> tuple[Access, Clock]:
    clock = Clock()
    return Access(rules, clock), clock


def refusal(access: Access, role: TokenRole, address: ChannelAddress, credential: str | None) -> tuple[Reason, str]:
    with pytest.raises(RefusedError) as caught:
        access.admit(role, address, credential)
    return caught.value.reason, str(caught.value)


def test_listening_is_open_by_pattern_and_broadcasting_by_key() -> None:
    access, _ = access_of(AccessRules(open_sessions=("public-*",), broadcast_key="open-sesame"))
    assert access.admit(TokenRole.LISTEN, ChannelAddress("public-1"), None).grant is None
    assert access.admit(TokenRole.LISTEN, ChannelAddress("public-1"), "anything").grant is None
    assert access.admit(TokenRole.BROADCAST, ChannelAddress("public-1"), "open-sesame").grant is not None
    assert refusal(access, TokenRole.LISTEN, EV1, None)[0] is Reason.MISSING
    assert refusal(access, TokenRole.LISTEN, EV1, "open-sesame")[0] is Reason.NOT_FOR_THIS, "a key is for broadcasting"
    assert refusal(access, TokenRole.BROADCAST, EV1, None)[0] is Reason.MISSING
    assert refusal(access, TokenRole.BROADCAST, EV1, "\udcff-sesame")[0] is Reason.KEY_ID


def test_nothing_opens_administration_by_itself() -> None:
    access, _ = access_of(AccessRules(open_broadcast=True, broadcast_key="open-sesame"))
    for credential in (None, "", "open-sesame"):
        refusal(access, TokenRole.ADMIN, EV1, credential)
        with pytest.raises(RefusedError):
            access.admit_operator(credential)
    assert access.refusals == {Reason.MISSING: 4, Reason.NOT_FOR_THIS: 2}


def test_an_admin_key_opens_administration_and_nothing_else() -> None:
    access, _ = access_of(AccessRules(sessions=("ev*",), broadcast_key="open-sesame", admin_key="close-sesame"))
    permit = access.admit_operator("close-sesame")
    assert permit.covers(ChannelAddress("ev2", "de"))
    assert not permit.covers_session("other"), "there is no such session"
    for role in (TokenRole.BROADCAST, TokenRole.LISTEN):
        with pytest.raises(RefusedError):
            access.rules.vouch("close-sesame").check(role, EV1)
    assert access.rules.holds(access.rules.vouch("close-sesame"))
    access.rules = AccessRules(broadcast_key="close-sesame", admin_key="open-sesame")
    assert access.admit_operator("open-sesame").covers_session("other")
    with pytest.raises(RefusedError):
        access.admit_operator("close-sesame")


def test_an_operator_by_token_is_held_to_its_patterns_and_its_time() -> None:
    class Verifier(FakeVerifier):
        def verify(self, token: str) -> Grant:
            roles = frozenset(
                {TokenRole.LISTEN} if token.startswith("another") else {TokenRole.ADMIN, TokenRole.LISTEN}
            )
            return Grant(roles, ("ev1", "a-*"), ("de",), token, NOW - 60, NOW + 60)

    access, clock = access_of(AccessRules(verifier=Verifier("key"), leeway_seconds=10))
    permit = access.admit_operator("key")
    assert [permit.covers_session(session) for session in ("ev1", "a-1", "ev2", "a")] == [True, True, False, False]
    assert [permit.covers(ChannelAddress("ev1", channel)) for channel in ("de", "main")] == [True, False]
    with pytest.raises(RefusedError):
        access.admit_operator("another role's")
    clock.now += 70
    with pytest.raises(RefusedError) as caught:
        access.admit_operator("key")
    assert caught.value.reason is Reason.EXPIRED


def test_session_guessing_gets_one_answer() -> None:
    rules = AccessRules(
        sessions=("ev1",), open_sessions=("none",), broadcast_key="open-sesame", verifier=FakeVerifier("key")
    )
    access, _ = access_of(rules)
    attempts = product(TokenRole, (EV1, ChannelAddress("unknown")), (None, "wrong", "key", "open-sesame"))
    answers = {}
    for role, address, credential in attempts:
        right = {TokenRole.LISTEN: "key", TokenRole.BROADCAST: "open-sesame"}.get(role, "")
        if address == EV1 and credential == right:
            access.admit(role, address, credential)
        else:
            answers[role, address, credential] = refusal(access, role, address, credential)[1]
    assert len(set(answers.values())) == 1, "the answers tell sessions that exist from others"
    assert sum(access.refusals.values()) == len(answers)


def test_a_session_that_is_not_listed_is_refused_although_listening_is_open() -> None:
    access, _ = access_of(AccessRules(sessions=("ev*",)))
    access.admit(TokenRole.LISTEN, EV1, None)
    assert refusal(access, TokenRole.LISTEN, ChannelAddress("other"), None)[0] is Reason.NO_SESSION


@pytest.mark.parametrize(
    ("seconds_later", "reason"),
    [(-40, Reason.NOT_YET), (-31, Reason.NOT_YET), (-30, None), (0, None), (69, None), (70, Reason.EXPIRED)],
)
def test_the_leeway_is_on_both_ends(seconds_later: int, reason: Reason | None) -> None:
    verifier = FakeVerifier("key", not_before=NOW - 20, expires_at=NOW + 60)
    access, clock = access_of(AccessRules(open_sessions=(), verifier=verifier, leeway_seconds=10))
    clock.now += seconds_later
    if reason is None:
        access.admit(TokenRole.LISTEN, EV1, "key")
    else:
        assert refusal(access, TokenRole.LISTEN, EV1, "key")[0] is reason


def test_an_open_connection_is_held_to_its_token() -> None:
    access, clock = access_of(AccessRules(open_sessions=(), verifier=FakeVerifier("key"), leeway_seconds=5))
    permit = access.admit(TokenRole.LISTEN, EV1, "key")
    clock.now += 64
    permit.check()
    clock.now += 1
    with pytest.raises(TokenExpiredError) as caught:
        permit.check()
    assert caught.value.close_code == 4001


@pytest.mark.parametrize(
    "rules",
    [
        AccessRules(open_sessions=(), verifier=FakeVerifier("another key")),
        AccessRules(open_sessions=()),
        AccessRules(open_sessions=(), sessions=("ev2",), verifier=FakeVerifier("key")),
    ],
    ids=["key replaced", "no keys left", "session withdrawn"],
)
def test_other_rules_hold_for_those_inside(rules: AccessRules) -> None:
    access, _ = access_of(AccessRules(open_sessions=(), verifier=FakeVerifier("key")))
    permit = access.admit(TokenRole.LISTEN, EV1, "key")
    access.rules = AccessRules(open_sessions=(), verifier=FakeVerifier("one more", "key"))
    permit.check()
    access.rules = rules
    with pytest.raises(TokenExpiredError):
        permit.check()


def test_another_broadcast_key_and_closed_listening_hold_for_those_inside() -> None:
    access, _ = access_of(AccessRules(broadcast_key="open-sesame"))
    permits = [access.admit(TokenRole.BROADCAST, EV1, "open-sesame"), access.admit(TokenRole.LISTEN, EV1, None)]
    access.rules = AccessRules(broadcast_key="close-sesame", open_sessions=("ev2",))
    for permit in permits:
        with pytest.raises(TokenExpiredError):
            permit.check()


def test_a_listener_moves_only_where_its_token_is_for() -> None:
    access, _ = access_of(AccessRules(open_sessions=(), verifier=FakeVerifier("key")))
    permit = access.admit(TokenRole.LISTEN, EV1, "key")
    permit.check_move(ChannelAddress("ev1", "de"))
    with pytest.raises(RefusedError):
        permit.check_move(ChannelAddress("ev2", "de"))
    permit.address = ChannelAddress("ev2", "de")
    with pytest.raises(TokenExpiredError):
        permit.check()


NAMES = st.text("abAB01._~-", min_size=1, max_size=64)


@given(NAMES, st.lists(st.integers(0, 63), max_size=4))
def test_a_star_is_any_characters(name: str, cuts: list[int]) -> None:
    pattern = name
    for cut in sorted({cut % (len(name) + 1) for cut in cuts}, reverse=True):
        pattern = pattern[:cut] + "*" + pattern[cut + 1 :]
        assert matches((pattern,), name)
    assert matches(("*",), name)
    assert not matches((f"*{name}x",), name)
    assert matches((name,), name)
    assert not matches((name.upper() + "Z",), name), "case matters, and so does the end"


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "listen", "ev*", "a\nb", "ü"])
CLAIMS = st.sampled_from(["role", "session", "channel", "exp", "nbf", "x"])


@given(st.dictionaries(CLAIMS, VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(CLAIMS, VALUES, max_size=1)))
def test_any_claims_give_a_grant_or_a_refusal(claims: dict[str, object]) -> None:
    try:
        grant = read_claims(claims, "key")
    except RefusedError as error:
        assert error.detail.isprintable()
    else:
        assert math.isfinite(grant.expires_at), "a token without an end"
        assert grant.roles
        assert grant.sessions
        assert grant.channels


ORIGIN = "https://relay.example.org"


@pytest.mark.parametrize(
    ("allowed", "origin", "host", "is_allowed"),
    [
        (["same-origin"], ORIGIN, "relay.example.org", True),
        (["same-origin"], ORIGIN, "RELAY.example.org:443", True),
        (["same-origin"], "http://127.0.0.1:8080", "127.0.0.1:8080", True),
        (["same-origin"], "http://[::1]:8080", "[::1]:8080", True),
        (["same-origin"], "http://127.0.0.1:8081", "127.0.0.1:8080", False),
        (["same-origin"], "http://localhost:8080", "127.0.0.1:8080", False),
        (["same-origin"], "https://evil.example", "relay.example.org", False),
        (["same-origin"], "https://relay.example.org.evil.example", "relay.example.org", False),
        (["same-origin"], "https://relay.example.org@evil.example", "relay.example.org", False),
        (["same-origin"], "null", "relay.example.org", False),
        (["same-origin"], "", "", False),
        (["same-origin"], "https://", "", False),
        (["same-origin"], "file://", "", False),
        (["same-origin"], "https://a b", "a b", False),
        (["same-origin"], "https://[::1", "[::1", False),
        (["same-origin"], "https://a:99999", "a:99999", False),
        (["same-origin"], f"https://{'a' * 253}.:65535", f"{'a' * 253}.:65535", True),
        (["same-origin"], f"https://{'a' * 254}.:65535", f"{'a' * 254}.:65535", False),
        ([ORIGIN], ORIGIN, "127.0.0.1:8080", True),
        ([ORIGIN], "https://relay.example.org:443", "127.0.0.1:8080", True),
        ([ORIGIN], "http://relay.example.org", "relay.example.org", False),
        ([ORIGIN], "https://127.0.0.1:8080", "127.0.0.1:8080", False),
        (["https://*.example.org"], "https://a.example.org", "127.0.0.1:8080", True),
        (["https://*.example.org"], "https://A.example.org:443", "127.0.0.1:8080", True),
        (["https://*.example.org:8443"], "https://a.example.org:8443", "127.0.0.1:8080", True),
        (["https://*.example.org"], "https://a.example.org:8443", "127.0.0.1:8080", False),
        (["https://*.example.org"], "http://a.example.org", "127.0.0.1:8080", False),
        (["https://*.example.org"], "https://example.org", "127.0.0.1:8080", False),
        (["https://*.example.org"], "https://.example.org", "127.0.0.1:8080", False),
        (["https://*.example.org"], "https://a.b.example.org", "127.0.0.1:8080", False),
        (["https://*.example.org"], "https://evilexample.org", "127.0.0.1:8080", False),
        (["https://*.example.org"], "https://a.example.org.evil.example", "127.0.0.1:8080", False),
        (["capacitor://localhost"], "capacitor://localhost", "relay.example.org", True),
        (["capacitor://localhost"], "ionic://localhost", "relay.example.org", False),
        (["capacitor://localhost"], "http://localhost", "relay.example.org", False),
        (["http://[0:0:0:0:0:0:0:1]"], "http://[::1]", "relay.example.org", True),
        (["*"], "https://evil.example", "relay.example.org", True),
        (["*"], "null", "relay.example.org", True),
        ([], ORIGIN, "relay.example.org", False),
    ],
)
def test_origin(allowed: list[str], origin: str, host: str, is_allowed: bool) -> None:
    assert is_allowed_origin(allowed, [origin], [host]) is is_allowed


APPS = (
    "capacitor://localhost",
    "ionic://localhost",
    "tauri://localhost",
    "http://tauri.localhost",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
)
"""Where Capacitor, Ionic, Tauri (macOS and Windows) and extensions of browsers show their pages."""


@pytest.mark.parametrize("entry", [ORIGIN, "https://*.example.org:8443", "http://[::1]:80", "same-origin", "*", *APPS])
def test_an_origin_that_a_page_can_have_may_be_allowed(entry: str) -> None:
    assert check_allowed_origin(entry) == entry
    host = entry.replace("*", "a")
    assert entry in ("same-origin", "*") or is_allowed_origin([entry], [host], ["relay.example.org"])


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("https://ex*mple.org", "only as the first label"),
        ("https://*", "only as the first label"),
        ("https://*.*.example.org", "only as the first label"),
        ("https://a.*.example.org", "only as the first label"),
        ("https://*example.org", "only as the first label"),
        ("*.example.org", "only as the first label"),
        ("*://relay.example.org", "only as the first label"),
        ("https://relay.example.org:*", "only as the first label"),
        ("https://*.0.0.1", "only as the first label"),
        ("https://*.127.0.0.1", "only as the first label"),
        ("https://*.[::1]", "only as the first label"),
        ("wss://relay.example.org", "the scheme of the page"),
        ("WS://relay.example.org", "the scheme of the page"),
        ("https://relay.example.org/", "without a path"),
        ("https://relay.example.org/listen/ev1", "without a path"),
        ("https://bücher.example", "as browsers send them"),
        ("https://127.1", "a list of origins such as"),
        ("https://0x7f000001", "a list of origins such as"),
        ("https://[::1%eth0]", "a list of origins such as"),
        ("https://[127.0.0.1]", "a list of origins such as"),
        ("https://a b", "a list of origins such as"),
        ("https://a%20b", "a list of origins such as"),
        ("https://user@relay.example.org", "a list of origins such as"),
        ("https://relay.example.org:99999", "a list of origins such as"),
        ("https://relay.example.org?a", "a list of origins such as"),
        ("relay.example.org", "a list of origins such as"),
        ("file://", "a list of origins such as"),
        ("null", "a list of origins such as"),
        ("", "a list of origins such as"),
    ],
)
def test_an_origin_that_no_page_can_have_is_refused(entry: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        check_allowed_origin(entry)


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("127.0.0.1:8080", True),
        ("127.0.0.2", True),
        ("[::1]:8080", True),
        ("LOCALHOST:8080", True),
        ("ev1.localhost:8080", True),
        ("evil.example:8080", False),
        ("localhost.evil.example:8080", False),
        ("127.0.0.1.evil.example:8080", False),
        ("192.0.2.1:8080", False),
        ("[2001:db8::1]:8080", False),
    ],
)
def test_on_loopback_only_its_names_are_the_relays_own(host: str, is_own: bool) -> None:
    origin = f"http://{host}"
    assert is_allowed_origin(["same-origin"], [origin], [host], is_private=True) is is_own
    assert is_allowed_origin(["same-origin"], [origin], [host])
    assert is_allowed_origin(["same-origin", origin], [origin], [host], is_private=True), "the operator knows the name"
    assert is_own_host(["same-origin"], [host]) is is_own
    assert is_own_host([], [host]) is is_own
    assert is_own_host([origin], [host])
    assert is_own_host(["*"], [host])


def test_a_request_without_a_host_is_no_browsers() -> None:
    assert is_own_host(["same-origin"], [])
    assert not is_own_host(["same-origin"], ["127.0.0.1", "evil.example"])


def test_two_origins_or_hosts_are_none_and_no_origin_is_no_browser() -> None:
    assert not is_allowed_origin(["same-origin", ORIGIN], [ORIGIN, ORIGIN], ["relay.example.org"])
    assert not is_allowed_origin(["same-origin"], [ORIGIN], ["relay.example.org", "evil.example"])
    assert not is_allowed_origin(["same-origin"], [ORIGIN], [])
    assert is_allowed_origin([], [], [])
