"""Floor 1: plain synchronous rules; no asyncio, no logging, no third party, and time is an argument."""
