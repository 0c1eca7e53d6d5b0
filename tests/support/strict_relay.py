"""`relay`, for which a socket that takes data again is no sign of life of who reads from it: only an answer is one."""

from math import inf

from relay.adapters.server import connection
from relay.cli.main import main

if __name__ == "__main__":
    connection.WAITED_SECONDS = inf
    main()
