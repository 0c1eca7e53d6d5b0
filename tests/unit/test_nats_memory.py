"""What a node asks servers that elect a leader."""

import asyncio
import json
from collections import Counter
from typing import Any, cast

from nats.aio.msg import Msg

from relay.cluster.nats_link import Link, Replies
from relay.cluster.nats_memory import Memory


class ElectingServers:
    """A link to servers that drop the first question about each stream, as they do while they elect a leader."""

    def __init__(self) -> None:
        self.replies = Replies()
        self.asked = Counter[str]()

    async def publish(self, subject: str, _payload: bytes, reply: str) -> None:
        self.asked[subject] += 1
        if self.asked[subject] > 1:
            answer = json.dumps({"config": {}, "created": "today"}).encode()
            message = Msg(cast(Any, None), subject=reply, data=answer)
            asyncio.get_running_loop().call_soon(self.replies.take, message)

    async def request(self, *_: object) -> bytes:
        return b"{}"


async def test_a_question_that_was_dropped_is_asked_again() -> None:
    servers = ElectingServers()
    assert await Memory("relay", 10.0, 3, 1_000_000).prepare(cast(Link, servers)) == "today"
    assert set(servers.asked.values()) == {2}
