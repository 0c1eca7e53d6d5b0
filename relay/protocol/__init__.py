"""The wire protocol `relay.v1`: requests, control messages, and the header in front of audio."""
