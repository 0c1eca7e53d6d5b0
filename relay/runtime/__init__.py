"""Floor 2: the asyncio machinery between the sockets; it knows no socket and no third party."""
