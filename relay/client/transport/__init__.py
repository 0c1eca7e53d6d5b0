"""One WebSocket connection from a client to a relay, for listeners and for broadcasters."""
