"""Audio inside a channel: numbering, pacing, history, and the bounded buffers of listeners."""
