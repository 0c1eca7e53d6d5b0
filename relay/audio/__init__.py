"""Audio on its way through a channel: numbering, pacing, history, and the bounded buffers of listeners."""
