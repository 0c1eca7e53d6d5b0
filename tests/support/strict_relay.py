"""`relay` with a stricter keepalive: only an answer, not a socket that takes data, proves that a peer is alive."""

from math import inf

from relay.cli.main import main
from relay.server import listener

if __name__ == "__main__":
    listener.WAITED_SECONDS = inf
    main()
