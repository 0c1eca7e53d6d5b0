"""The WebSocket server, on the `websockets` library: handshakes, broadcasters' and listeners' connections."""
