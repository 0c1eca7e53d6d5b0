"""The number of files and sockets that this process may open."""

import resource
import sys


def allow_open_files(files: int) -> int:
    """Raise the process's limit on open files to `files`, as far as the system allows, and return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = files if hard == resource.RLIM_INFINITY else min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
