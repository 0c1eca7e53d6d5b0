"""A cluster: several relays, called nodes, that carry the same channels."""
