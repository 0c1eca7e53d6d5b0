"""Several relays that carry the same channels: who is a channel's home, and how its audio reaches the other nodes."""
