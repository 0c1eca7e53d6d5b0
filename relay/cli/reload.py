"""Reads the configuration again while the relay runs."""

import logging
from collections.abc import Callable

from relay.cli.app import RunningRelay
from relay.process.logs import set_log_level
from relay.settings.configuration import KEYS
from relay.settings.settings import Settings
from relay.vocabulary.errors import ConfigurationError

_RELOADED_SECTIONS = ("access", "limits")
_RELOADED_KEYS = (
    "broadcast.key",
    "broadcast.open",
    "log.level",
    "server.tls_certificate",
    "server.tls_key",
    "server.trusted_proxies",
)

logger = logging.getLogger(__name__)


class Reload:
    """Reads the configuration again at each call, and applies what can change while the relay runs.

    Invariants: a configuration that cannot be used changes nothing and is logged in one line. The log never contains
    values of settings, which may be secrets. Only clients that the new keys reject are disconnected.
    """

    def __init__(self, relay: RunningRelay, settings: Settings, read: Callable[[], Settings]) -> None:
        """`read` returns the current settings, or raises ConfigurationError if they cannot be used."""
        self._relay = relay
        self._started_with = self._settings = settings
        self._read = read

    def __call__(self) -> None:
        """Reload the configuration. This blocks as long as it takes to read the files."""
        try:
            settings = self._read()
            closed = self._relay.replace(settings)
        except ConfigurationError as error:
            tell_not_reloaded(error)
            return
        set_log_level(settings.log)
        changed = [name for name in _differences(self._settings, settings) if _is_reloaded(name)]
        later = [name for name in _differences(self._started_with, settings) if not _is_reloaded(name)]
        logger.info("configuration reloaded", extra={"changed": changed, "closing": closed})
        if later:
            logger.warning("these changed settings take effect only after a restart", extra={"settings": later})
        self._settings = settings


def tell_not_reloaded(error: ConfigurationError) -> None:
    """Log why the configuration stays as it is. An operator's mistake needs no traceback."""
    logger.error("the configuration was not reloaded; the previous one stays in force", extra={"faults": str(error)})


def _differences(before: Settings, after: Settings) -> list[str]:
    return [name for name in KEYS if _value(before, name) != _value(after, name)]


def _value(settings: Settings, name: str) -> object:
    section, key = name.split(".")
    return getattr(getattr(settings, section), key)


def _is_reloaded(name: str) -> bool:
    return name in _RELOADED_KEYS or name.partition(".")[0] in _RELOADED_SECTIONS
