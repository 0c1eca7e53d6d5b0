"""The client's side of one WebSocket to a relay, of either role; it never connects again by itself."""
