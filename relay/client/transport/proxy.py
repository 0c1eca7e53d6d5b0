"""Finds the environment's proxy through which a client connects, and explains its failures.

Invariants: a proxy's failure is never blamed on the relay. The sentence names the proxy, where it was configured, and
how to avoid it. It never shows a password in the proxy's address.
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
"""Schemes of the variables that apply (`ws_proxy` and so on), without and with TLS. Earlier ones take precedence."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. As text, it is a phrase for a sentence.

    Attributes:
        address: Address as configured, perhaps with a password.
        variable: The environment variable that names it; None if the system's settings do.
    """

    address: str = field(repr=False)
    variable: str | None

    def __str__(self) -> str:
        shown = printable(re.sub(r"//[^/]*@", "//", self.address))
        source = (
            "the system's settings name" if self.variable is None else f"the environment variable {self.variable} names"
        )
        return f"the proxy {shown} that {source}"


def find_proxy(url: str) -> Proxy | None:
    """Return the proxy for the address of a relay; None if there is none, or if the address is not valid.

    A relay on this machine has none, because a proxy would look for the relay on its own machine.
    """
    try:
        uri = parse_uri(re.sub("^http", "ws", url))
    except (InvalidURI, ValueError):
        # Connecting reports the error.
        return None
    address = None if is_loopback(uri.host) else get_proxy(uri)
    return None if address is None else Proxy(address, _variable(address, is_secure=uri.secure))


def _variable(address: str, *, is_secure: bool) -> str | None:
    for scheme in _SCHEMES[is_secure]:
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            value = os.environ.get(name)
            # The library may have added a scheme in front.
            if value and address.endswith(value.removeprefix("http://")):
                return name
    return None


def proxy_error(url: str, proxy: Proxy, error: Exception, timeout_seconds: float) -> UserError:
    """Return the error for a connection that failed at the proxy or beyond it."""
    kind: type[UserError] = UnreachableError
    match error:
        case TimeoutError():
            what = f"did not connect to {url} within {timeout_seconds:g} s"
        case gaierror():
            what = "has an unknown host"
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
            # The text of the error could show a password.
            what, kind = f"cannot be used ({error.msg})", UserError
        case ImportError():
            what, kind = f"cannot be used ({error})", UserError
        case ConnectionError():
            what = f"broke the connection to {url}"
        case _:
            what = f"cannot be used ({printable(str(error))})"
    unset = "change it" if proxy.variable is None else "unset it"
    return kind(f"T{str(proxy)[1:]} {what}; {unset}, or set no_proxy to {urlsplit(url).hostname}.")
