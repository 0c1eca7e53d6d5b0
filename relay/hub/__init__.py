"""Channels with their broadcasters and listeners, and the task that sends audio to all of them; no sockets."""
