"""Channels, their broadcasters and listeners, and the task that sends them audio. Nothing here opens a socket."""
