"""Several relays of one machine behind one socket: they are started, watched, and replaced when they fail."""
