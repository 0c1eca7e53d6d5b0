"""The WebSocket server: connections, handshakes, and the operator's API."""
