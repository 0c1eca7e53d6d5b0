"""`relay`, for which a socket that takes data again is no sign of life of who reads from it: only an answer is one."""

from math import inf

from relay.cli.main import main
from relay.server import listener

if __name__ == "__main__":
    listener.WAITED_SECONDS = inf
    main()
