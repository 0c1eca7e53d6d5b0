"""Load tests without sockets: who joins when, what each listener got, how late it was, and what that comes to."""
