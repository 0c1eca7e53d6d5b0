"""The proxy of the environment that a client connects through, and what went wrong with it.

Invariants: what a proxy did is never called the relay's fault; the sentence names the proxy, what chose it, and the way
around it; a password in the proxy's address is never shown.
"""

import os
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from socket import gaierror
from urllib.parse import urlsplit

from websockets.exceptions import InvalidProxy, InvalidProxyMessage, InvalidProxyStatus, InvalidURI
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from relay.client.transport.failures import is_refused
from relay.vocabulary.errors import UnreachableError, UserError
from relay.vocabulary.hosts import is_loopback
from relay.vocabulary.text import printable

_SCHEMES = {False: ("ws", "socks", "https", "http"), True: ("wss", "socks", "https")}
"""The variables that count, `ws_proxy` and so on, by whether the relay is reached over TLS; the first goes first."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy; its text names it for a sentence.

    Attributes:
        address: As it is set, perhaps with a password.
        variable: The environment variable that names it; None when the system's settings do.
    """

    address: str = field(repr=False)
    variable: str | None

    def __str__(self) -> str:
        """Name it without what is secret."""
        shown = printable(re.sub(r"//[^/]*@", "//", self.address))
        source = (
            "the system's settings name" if self.variable is None else f"the environment variable {self.variable} names"
        )
        return f"the proxy {shown} that {source}"


def find_proxy(url: str) -> Proxy | None:
    """Find the proxy for the address of a relay; None when there is none, or the address can not be read.

    A relay on this machine has none: a proxy would look for it on its own machine.
    """
    try:
        uri = parse_uri(re.sub("^http", "ws", url))
    except (InvalidURI, ValueError):
        # Connecting has a sentence for it.
        return None
    address = None if is_loopback(uri.host) else get_proxy(uri)
    return None if address is None else Proxy(address, _variable(address, is_secure=uri.secure))


def _variable(address: str, *, is_secure: bool) -> str | None:
    for scheme in _SCHEMES[is_secure]:
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            value = os.environ.get(name)
            # The library writes another scheme before some.
            if value and address.endswith(value.removeprefix("http://")):
                return name
    return None


def proxy_error(url: str, proxy: Proxy, error: Exception, timeout_seconds: float) -> UserError:
    """Give the error for a connection that failed at the proxy, or on the way through it."""
    kind: type[UserError] = UnreachableError
    match error:
        case TimeoutError():
            what = f"did not connect to {url} within {timeout_seconds:g} s"
        case gaierror():
            what = "has a host that is unknown"
        case OSError() if is_refused(error):
            what = "accepts no connections"
        case InvalidProxyStatus():
            status = error.response.status_code
            what = f"refuses to connect to {url} (HTTP {status})"
            if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                kind = UserError
        case InvalidProxyMessage():
            what, kind = "does not answer like a proxy", UserError
        case InvalidProxy():
            # The text of the error would show a password.
            what, kind = f"can not be used ({error.msg})", UserError
        case ImportError():
            what, kind = f"can not be used ({error})", UserError
        case ConnectionError():
            what = f"broke the connection to {url} off"
        case _:
            what = f"can not be used ({printable(str(error))})"
    unset = "change it" if proxy.variable is None else "unset it"
    return kind(f"T{str(proxy)[1:]} {what}; {unset}, or set no_proxy to {urlsplit(url).hostname}.")
