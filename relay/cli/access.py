"""Turns settings into access rules: reads keys and reports mistakes before anything listens."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from relay.access.local_key import LocalKey, generate_key
from relay.access.rules import AccessRules
from relay.access.tokens import TokenKey, TokenVerifier, read_key_file, read_secret
from relay.settings.settings import AccessSettings, Settings
from relay.vocabulary.errors import ConfigurationError
from relay.vocabulary.hosts import public_host

_EVERYTHING = ("*",)


@dataclass(frozen=True, slots=True)
class RelayKeys:
    """What a relay's broadcasters and operators may present in place of a token.

    Attributes:
        broadcast_key: The broadcasters' key, if there is one.
        admin_key: The operators' key, if there is one.
        made: The keys that the relay made itself.
    """

    broadcast_key: str | None
    admin_key: str | None
    made: frozenset[LocalKey] = frozenset()

    @property
    def of_own_making(self) -> dict[LocalKey, str]:
        """The keys that the relay made itself, by purpose."""
        keys = {LocalKey.BROADCAST: self.broadcast_key, LocalKey.ADMIN: self.admin_key}
        return {kind: key for kind, key in keys.items() if kind in self.made and key is not None}

    @classmethod
    def made_elsewhere(cls, keys: Mapping[LocalKey, str]) -> "RelayKeys":
        """Return keys that another process of this relay made."""
        return cls(keys.get(LocalKey.BROADCAST), keys.get(LocalKey.ADMIN), frozenset(keys))

    def kept_from(self, before: "RelayKeys") -> "RelayKeys":
        """Return these keys, but keep the keys that the relay made `before` where it would make new ones."""
        kept = self.made & before.made
        return replace(
            self,
            broadcast_key=before.broadcast_key if LocalKey.BROADCAST in kept else self.broadcast_key,
            admin_key=before.admin_key if LocalKey.ADMIN in kept else self.admin_key,
        )


def choose_keys(settings: Settings) -> RelayKeys:
    """Return the keys of a relay that starts. On loopback, a relay that could admit no broadcaster makes a key.

    Raises:
        ConfigurationError: Other machines can reach the relay, and nothing says who may broadcast; or every broadcaster
            could end every session; or settings contradict each other.
    """
    broadcast, host = settings.broadcast, public_host(settings.server.host)
    admin_key = None if settings.access.admin_key is None else settings.access.admin_key.get_secret_value()
    if broadcast.open and broadcast.key is not None:
        raise ConfigurationError(
            "broadcast.open and broadcast.key are both set, but broadcast.open lets everybody broadcast without a key: "
            "unset one of them."
        )
    if broadcast.key is not None:
        broadcast_key = broadcast.key.get_secret_value()
        if broadcast_key == admin_key:
            raise ConfigurationError(
                "broadcast.key and access.admin_key are the same, so every broadcaster could end every session. "
                "Give them different values."
            )
        return RelayKeys(broadcast_key, admin_key)
    if broadcast.open and host is not None:
        raise ConfigurationError(
            f"server.host is {host}, which other machines can reach, and broadcast.open would let them broadcast. "
            "Unset broadcast.open, or listen on 127.0.0.1."
        )
    if broadcast.open or has_token_keys(settings.access):
        return RelayKeys(None, admin_key)
    if host is not None:
        raise ConfigurationError(
            f"server.host is {host}, which other machines can reach, but there is no broadcast key, so anybody could "
            "broadcast. Set RELAY_BROADCAST_KEY (8 to 256 characters, for example from: openssl rand -hex 24), or set "
            "token keys (access.token_secret or access.token_key_files), or listen on 127.0.0.1."
        )
    if admin_key is not None:
        return RelayKeys(generate_key(), admin_key, frozenset({LocalKey.BROADCAST}))
    return RelayKeys(generate_key(), generate_key(), frozenset(LocalKey))


def read_rules(settings: Settings, keys: RelayKeys) -> AccessRules:
    """Return the access rules of the settings.

    Args:
        settings: Their key files are read now.
        keys: The result of `choose_keys`. The settings are not enough, because a relay may have made its own keys.

    Raises:
        ConfigurationError: A key file cannot be used, or nobody could listen to some sessions.
    """
    access = settings.access
    if access.open_sessions != _EVERYTHING and not has_token_keys(access):
        raise ConfigurationError(
            "access.open_sessions does not open all sessions, so listeners of the others need a token, but there are "
            "no token keys. Set access.token_secret or access.token_key_files."
        )
    return AccessRules(
        sessions=access.sessions,
        open_sessions=access.open_sessions,
        open_broadcast=settings.broadcast.open,
        broadcast_key=keys.broadcast_key,
        admin_key=keys.admin_key,
        verifier=read_verifier(access) if has_token_keys(access) else None,
        leeway_seconds=access.token_leeway_seconds,
    )


def read_verifier(access: AccessSettings) -> TokenVerifier:
    """Return a verifier of tokens with the settings' keys.

    Raises:
        ConfigurationError: A key cannot be used.
    """
    return TokenVerifier(read_token_keys(access), access.token_issuer, access.token_audience)


def read_token_keys(access: AccessSettings) -> list[TokenKey]:
    """Read all token keys that the settings name.

    Raises:
        ConfigurationError: A key cannot be used.
    """
    keys = [key for name in access.token_key_files for key in read_key_file(Path(name))]
    if access.token_secret is not None:
        keys.append(read_secret(access.token_secret.get_secret_value(), "access.token_secret"))
    return keys


def has_token_keys(access: AccessSettings) -> bool:
    """Return whether the settings name any token keys."""
    return bool(access.token_key_files) or access.token_secret is not None
