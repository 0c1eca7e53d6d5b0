"""The word for the proxies on this machine among `server.trusted_proxies`."""

LOOPBACK = "loopback"

LOOPBACK_ADDRESSES = ("127.0.0.1", "::1")
"""What the word stands for."""
