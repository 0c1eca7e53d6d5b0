"""Settings for a relay that runs in the test's own process."""

from collections.abc import Mapping

from relay.settings.configuration import load_settings
from relay.settings.settings import Settings
from tests.support.ports import free_port


def settings_with(options: Mapping[str, object]) -> Settings:
    """Return the default settings with a free port, with these options, and with no limit on the lag.

    With that limit, a relay on a busy machine would refuse listeners.
    """
    return load_settings(None, {"server.port": free_port(), "limits.max_lag_ms": "never", **options}, {}).settings
