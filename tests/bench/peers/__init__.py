"""The other servers: ours on top of other libraries, and configurations of programs of other people."""
