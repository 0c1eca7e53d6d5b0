"""SIGHUP: the configuration is read again, and what can change while the relay runs is put in force.

Invariants: a configuration that can not be used changes nothing and is one line of the log; no value of a setting is
written there, least of all a secret; nobody is dropped but whoever the new keys do not admit.
"""

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
    """Reads the configuration again, each time that it is called."""

    def __init__(self, relay: RunningRelay, settings: Settings, read: Callable[[], Settings]) -> None:
        """Make it.

        Args:
            relay: What runs.
            settings: What is in force.
            read: Gives the settings as they are written now; raises ConfigurationError.
        """
        self._relay = relay
        self._settings = settings
        self._read = read

    def __call__(self) -> None:
        """Do it; it takes as long as reading the files."""
        try:
            settings = self._read()
            closed = self._relay.replace(settings)
        except ConfigurationError as error:
            logger.error("the configuration is not reloaded, the former stays", extra={"faults": str(error)})  # noqa: TRY400 - an operator's mistake has no traceback
            return
        set_log_level(settings.log)
        changed = [name for name in KEYS if _value(settings, name) != _value(self._settings, name)]
        later = [name for name in changed if not _is_reloaded(name)]
        logger.info(
            "configuration reloaded",
            extra={"changed": [name for name in changed if name not in later], "closing": closed},
        )
        if later:
            logger.warning("these settings are changed, but hold only after a restart", extra={"settings": later})
        self._settings = settings


def _value(settings: Settings, name: str) -> object:
    section, key = name.split(".")
    return getattr(getattr(settings, section), key)


def _is_reloaded(name: str) -> bool:
    return name in _RELOADED_KEYS or name.partition(".")[0] in _RELOADED_SECTIONS
