"""Networks that misbehave in one way after another."""

import asyncio
import random

from tests.support.fault_proxy import FaultProxy, Way


async def misbehave(network: FaultProxy, choice: random.Random, until: float) -> None:
    """Cause one fault after another until a time of the loop's clock; then restore the network."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        way = choice.choice((network.up, network.down))
        match choice.randrange(8):
            case 0:
                network.kill()
            case 1:
                network.stall()
            case 2:
                network.vanish()
            case 3:
                way.ignore()
            case 4:
                way.bytes_per_second = choice.uniform(20_000, 200_000)
            case 5:
                way.latency_seconds, way.jitter_seconds = choice.uniform(0, 0.5), choice.uniform(0, 0.2)
            case 6:
                way.slice_bytes = choice.choice((20, 200, 1000))
            case _:
                way.group_seconds = choice.choice((0.05, 0.2))
        await asyncio.sleep(choice.uniform(0.1, 1.2))
        recover(network)
        await asyncio.sleep(choice.uniform(0, 0.3))


def recover(network: FaultProxy) -> None:
    network.appear()
    for way in (network.up, network.down):
        good = Way()
        way.bytes_per_second, way.slice_bytes = good.bytes_per_second, good.slice_bytes
        way.latency_seconds, way.jitter_seconds, way.group_seconds = 0.0, 0.0, 0.0
