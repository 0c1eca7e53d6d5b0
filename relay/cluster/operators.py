"""The operator's API of a cluster. The node that gets a request asks all others and merges their answers.

Invariants: Each node applies the operator's permit itself; no credential leaves the node that received it. An answer
comes after `ANSWER_SECONDS` at the latest, and names the nodes that are alive and did not answer. A request that finds
nothing while nodes are silent fails, because its target may be on one of them. An answer has the same bounds as that of
a single relay.

Source: docs/http-api.md.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from heapq import nlargest
from typing import Self

from relay.access.grants import Grant, TokenRole
from relay.access.rules import OperatorPermit
from relay.cluster.bus import Bus
from relay.hub.operations import MAX_CHANNELS, MAX_LISTENERS, Json, Operations, Shown, Survey, covers
from relay.protocol.operator_requests import Operation, OperatorRequest
from relay.vocabulary.errors import CloseCode, RelayError
from relay.vocabulary.names import ChannelAddress

ANSWER_SECONDS = 1.0
"""How long a node may take to answer. Describing 10 000 listeners takes some milliseconds."""

MAX_COUNTED = 4000
"""The most channels that a node only counts, beside those that it describes. With the longest names, its answer has
800 KB at most, and NATS allows 1 MiB. Of further channels, a node reports only how many it has."""

_QUESTION = "operators"
_NOTHING = b"null"
_SURVEYS = frozenset({Operation.LIST, Operation.SHOW})


class SilentNodesError(RelayError):
    """Nodes did not answer, and one of them may have what the operator asked for."""

    close_code = CloseCode.INTERNAL
    http_status = 503

    def __init__(self, silent: Iterable[str]) -> None:
        super().__init__(f"These nodes of the cluster do not answer: {', '.join(silent)}. Try again in a moment.")


class ClusterOperations:
    """Does on all nodes what an operator wants. Within this async context manager, this node answers the others."""

    def __init__(self, bus: Bus, operations: Operations) -> None:
        self._bus = bus
        self._operations = operations
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        subscription = await self._bus.answer(_QUESTION, self._reply)
        self._stack.callback(subscription.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stack.close()

    async def perform(self, wanted: OperatorRequest, permit: OperatorPermit, operator: str) -> Json | None:
        """Do what an operator wants on all nodes, and return the answer; see `Operations.perform`.

        Raises:
            SilentNodesError: The nodes that answered found nothing, and others did not answer.
        """
        if not covers(permit, wanted):
            return None
        here = self._bus.node_id
        shares = {here: self._share(wanted, permit, operator)}
        question = _encode_question(here, wanted, permit, operator)
        for node, answer in (await self._bus.ask(_QUESTION, question, ANSWER_SECONDS)).items():
            if node != here:
                with suppress(KeyError, TypeError, ValueError):  # a node of another version may answer differently
                    shares[node] = _decode_share(wanted, answer)
        silent = sorted(self._bus.nodes.keys() - shares.keys())
        found = _merge(wanted, {node: share for node, share in sorted(shares.items()) if share is not None})
        if found is not None:
            return {**found, "silent_nodes": silent}
        if silent:
            raise SilentNodesError(silent)
        return None

    async def _reply(self, payload: bytes) -> bytes:
        asker, wanted, permit, operator = _decode_question(payload)
        if asker == self._bus.node_id:
            return _NOTHING
        share = self._share(wanted, permit, operator)
        return _encode(_encode_survey(share) if isinstance(share, Survey) else share)

    def _share(self, wanted: OperatorRequest, permit: OperatorPermit, operator: str) -> Survey | Json | None:
        """Return this node's part of an answer."""
        if wanted.operation in _SURVEYS:
            return self._operations.survey(permit, wanted.session or None)
        return self._operations.perform(wanted, permit, operator)


def _merge(wanted: OperatorRequest, shares: Mapping[str, Survey | Json]) -> Json | None:
    """Return the answer of all nodes, from the parts of those that have one."""
    surveys = {node: share for node, share in shares.items() if isinstance(share, Survey)}
    done = [share for share in shares.values() if not isinstance(share, Survey)]
    match wanted.operation:
        case Operation.LIST:
            return _merge_surveys(surveys).list_sessions()
        case Operation.SHOW:
            return _merge_surveys(surveys).show_session(wanted.session)
        case Operation.END:
            ended = {channel for share in done for channel in share["ended"]}
            return {"session": wanted.session, "ended": sorted(ended)} if ended else None
    return next(iter(done), None)


def _merge_surveys(surveys: Mapping[str, Survey]) -> Survey:
    """Merge the surveys of all nodes."""
    described: dict[ChannelAddress, dict[str, Shown]] = defaultdict(dict)
    counted: Counter[ChannelAddress] = Counter()
    worst: list[Json] = []
    listeners = uncounted = 0
    for node, survey in surveys.items():
        for channel in survey.shown:
            described[channel.address][node] = channel
        for address, number in survey.left_out:
            counted[address] += number
        worst += [{**listener, "node": node} for listener in survey.worst_listeners]
        listeners += survey.listeners
        uncounted = max(uncounted, survey.uncounted)
    merged = [_merge_channel(shown, counted.pop(address, 0)) for address, shown in described.items()]
    merged.sort(key=lambda each: (each.figures["broadcaster"] is None, -each.figures["listeners"]))
    left_out = [(each.address, each.figures["listeners"]) for each in merged[MAX_CHANNELS:]]
    return Survey(
        sorted(merged[:MAX_CHANNELS], key=lambda each: (each.address.session, each.address.channel)),
        [*left_out, *counted.items()],
        listeners,
        nlargest(MAX_LISTENERS, worst, key=lambda each: (each["lag_ms"], each["dropped_seconds"])),
        uncounted,
    )


def _merge_channel(shown: Mapping[str, Shown], listeners: int) -> Shown:
    """Merge the reports about a channel: the source is that of its home, and the listeners are those of all nodes.

    `listeners` is the number of those on nodes that only counted them.
    """
    home = max(shown, key=lambda node: (shown[node].is_home, shown[node].figures["broadcaster"] is not None))
    figures = dict(shown[home].figures)
    if figures["broadcaster"] is not None:
        figures["broadcaster"] = {**figures["broadcaster"], "node": home}
    # Frames are released at the home, and the home may have been elsewhere before.
    for name in ("listeners", "released_frames", "delivered_frames", "dropped_frames"):
        figures[name] = sum(channel.figures[name] for channel in shown.values())
    figures["listeners"] += listeners
    codecs: Counter[str] = Counter()
    for channel in shown.values():
        codecs.update(channel.figures["codec_listeners"])
    figures["codec_listeners"] = dict(codecs)
    return Shown(shown[home].address, shown[home].is_home, figures)


# The messages between nodes are JSON. Its arrays have the members of the values in order.


def _encode(value: Json | None) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _encode_question(asker: str, wanted: OperatorRequest, permit: OperatorPermit, operator: str) -> bytes:
    grant = permit.grant
    return _encode(
        {
            "asker": asker,
            "operator": operator,
            "wanted": [wanted.operation, wanted.session, wanted.channel, wanted.connection_id],
            "permit": [permit.sessions, grant.sessions, grant.channels],
        }
    )


def _decode_question(payload: bytes) -> tuple[str, OperatorRequest, OperatorPermit, str]:
    question = json.loads(payload)
    operation, *target = question["wanted"]
    existing, sessions, channels = map(tuple, question["permit"])
    asker = question["asker"]
    grant = Grant(frozenset({TokenRole.ADMIN}), sessions, channels, asker)
    return asker, OperatorRequest(Operation(operation), *target), OperatorPermit(existing, grant), question["operator"]


def _decode_share(wanted: OperatorRequest, answer: bytes) -> Survey | Json | None:
    share: Json | None = json.loads(answer)
    return share if share is None or wanted.operation not in _SURVEYS else _decode_survey(share)


def _encode_survey(survey: Survey) -> Json:
    counted = survey.left_out[:MAX_COUNTED]
    return {
        "shown": [[each.address.session, each.address.channel, each.is_home, each.figures] for each in survey.shown],
        "left_out": [[address.session, address.channel, listeners] for address, listeners in counted],
        "uncounted": len(survey.left_out) - len(counted),
        "listeners": survey.listeners,
        "worst_listeners": survey.worst_listeners,
    }


def _decode_survey(share: Json) -> Survey:
    return Survey(
        [Shown(ChannelAddress(session, name), is_home, figures) for session, name, is_home, figures in share["shown"]],
        [(ChannelAddress(session, name), listeners) for session, name, listeners in share["left_out"]],
        share["listeners"],
        share["worst_listeners"],
        share["uncounted"],
    )
