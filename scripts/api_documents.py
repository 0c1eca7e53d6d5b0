"""Describe the relay for programs: an AsyncAPI document of the protocol, an OpenAPI document of the HTTP API.

The messages come from `relay.protocol.messages`: types from the fields, descriptions from the docstrings. The relay
serves both documents as files, so it runs none of this code.

Sources: asyncapi.com/docs/reference/specification/v3.0.0, spec.openapis.org/oas/v3.1.0.
"""

import inspect
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, get_args, get_origin

from relay import __version__
from relay.protocol import messages
from relay.protocol.json_messages import Member, Message, Record, layout_of
from relay.protocol.wire import MAX_BROADCAST_BYTES, SUBPROTOCOL, TOKEN_SUBPROTOCOL_PREFIX
from relay.vocabulary.audio import CHANNEL_COUNTS, SAMPLE_RATES, AudioFormat, Codec, Pace
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.containers import Container

Json = dict[str, Any]

_TITLE = "Audio relay"
_LICENSE = {"name": "MIT"}
_ID = {"type": "string", "minLength": 1, "maxLength": 64, "pattern": r"^\.*[A-Za-z0-9_~-][A-Za-z0-9._~-]*$"}
_MILLISECONDS = {"type": "integer", "minimum": 0, "maximum": 9_999_999_999}


# Descriptions and types, from the dataclasses.


def words(kind: type) -> tuple[str, dict[str, str]]:
    """Return a docstring's description of a class, and of each attribute."""
    text, _, attributes = inspect.getdoc(kind).partition("\n\nAttributes:\n")  # type: ignore[union-attr]
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", f"\n{attributes}"):
        name, colon, said = entry.strip().partition(": ")
        if colon:
            found[name] = " ".join(said.split())
    return " ".join(text.split()), found


def schema_of_record(kind: type[Record], *, is_written_by_relay: bool) -> Json:
    """Return the schema of a message, or of a record in one."""
    text, said = words(kind)
    members, _ = layout_of(kind)
    properties: Json = {}
    if issubclass(kind, Message):
        properties = {"type": {"const": kind.TYPE}} | {name: _constant(value) for name, value in kind.ALWAYS.items()}
    required = [*properties, *(each.name for each in members if is_written_by_relay or each.is_required)]
    for each in members:
        properties[each.name] = {**_schema_of_member(each), "description": said[each.attribute]}
    return {"type": "object", "description": text, "required": required, "properties": properties}


def _constant(value: object) -> Json:
    if isinstance(value, Mapping):
        return {"type": "object", "properties": {name: {"const": each} for name, each in value.items()}}
    return {"const": value}


def _schema_of_member(member: Member) -> Json:
    schema = _schema_of_type(member.kind)
    if not member.is_nullable:
        return schema
    return {"oneOf": [schema, {"type": "null"}]}


def _schema_of_type(kind: Any) -> Json:  # noqa: ANN401 - any type
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _reference("schemas", get_args(kind)[0].__name__)}
    if kind is AudioFormat:
        return _reference("schemas", kind.__name__)
    if issubclass(kind, StrEnum):
        return {"type": "string", "enum": [each.value for each in kind]}
    if kind is int:
        return {"type": "integer", "minimum": 0}
    return {"type": {float: "number", bool: "boolean"}.get(kind, "string")}


def _reference(*place: str) -> Json:
    return {"$ref": f"#/components/{'/'.join(place)}"}


def shared_schemas() -> Json:
    """Return the schemas that several messages and answers share."""
    text, said = words(AudioFormat)
    return {
        "AudioFormat": {
            "type": "object",
            "description": text,
            "required": ["codec", "rate", "channels", "clock_rate"],
            "properties": {
                "codec": {"enum": [each.value for each in Codec], "description": said["codec"]},
                "rate": {"enum": list(SAMPLE_RATES), "description": said["rate"]},
                "channels": {"enum": list(CHANNEL_COUNTS), "description": said["channels"]},
                "clock_rate": {"type": "integer", "description": "Ticks a second of the media time."},
            },
        },
        "ChannelEntry": schema_of_record(messages.ChannelEntry, is_written_by_relay=True),
    }


# AsyncAPI.

_QUERY_OF_A_BROADCASTER: Json = {
    "codec": {"enum": [each.value for each in Codec], "default": AudioFormat().codec.value},
    "rate": {"enum": list(SAMPLE_RATES), "default": AudioFormat().rate},
    "channels": {"enum": list(CHANNEL_COUNTS), "default": AudioFormat().channels},
    "pace": {"enum": [each.value for each in Pace], "default": Pace.LIVE.value},
    "takeover": {"enum": [0, 1], "default": 0, "description": "1 replaces the present broadcaster, if there is one."},
    "resume": {"type": "string", "description": "The `connection_id` of its connection before."},
    "name": {"type": "string", "description": "What people call the channel."},
    "lang": {"type": "string", "description": "BCP 47 tag of the channel's language."},
    "session_name": {"type": "string", "description": "What people call the session."},
}
_QUERY_OF_A_LISTENER: Json = {
    "codec": {"type": "string", "description": "What it can play, separated by commas, the best first."},
    "buffer_ms": {**_MILLISECONDS, "description": "Its bound on the age of what it is sent."},
    "burst_ms": {**_MILLISECONDS, "description": "How much audio from before the join it begins with."},
    "coalesce_ms": {**_MILLISECONDS, "description": "How long frames wait to be sent together."},
    "packet_ms": {**_MILLISECONDS, "description": "How much audio Opus frames may have that share one message."},
    "epoch": {**_MILLISECONDS, "description": "Of the last frame that it got, to go on behind it."},
    "after": {**_MILLISECONDS, "description": "The seq of the last frame that it got."},
    "after_codec": {
        "enum": [each.value for each in Codec],
        "default": Codec.PCM_S16LE.value,
        "description": "The codec of that frame.",
    },
}
_AUDIO_TO_A_LISTENER: Json = {
    "name": "audio",
    "summary": "One frame: a header of 16 bytes in network byte order, then its audio.",
    "description": (
        "u8 version 1, u8 flags, u16 epoch, u32 seq, u32 media time, u32 due time. With flag 1, several packets "
        "follow, each behind its length as a u16."
    ),
    "contentType": "application/octet-stream",
    "payload": {"type": "string", "format": "binary"},
}
_AUDIO_FROM_A_BROADCASTER: Json = {
    "name": "audio",
    "summary": "Whole samples, or one packet, in the format that the address names.",
    "contentType": "application/octet-stream",
    "payload": {"type": "string", "format": "binary", "maxLength": MAX_BROADCAST_BYTES},
}


def asyncapi() -> Json:
    """Return the AsyncAPI document."""
    to_relay, from_relay = (
        {kind.__name__: kind for table in tables for kind in table}
        for tables in (
            (messages.FROM_LISTENER, messages.FROM_BROADCASTER),
            (messages.TO_LISTENER, messages.TO_BROADCASTER),
        )
    )
    components = {
        name: _asyncapi_message(kind, is_written_by_relay=name in from_relay)
        for name, kind in {**to_relay, **from_relay}.items()
    }
    components["AudioToListener"] = _AUDIO_TO_A_LISTENER
    components["AudioFromBroadcaster"] = _AUDIO_FROM_A_BROADCASTER
    listener = [_names(messages.TO_LISTENER, "AudioToListener"), _names(messages.FROM_LISTENER)]
    broadcaster = [_names(messages.TO_BROADCASTER), _names(messages.FROM_BROADCASTER, "AudioFromBroadcaster")]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": _TITLE,
            "version": __version__,
            "description": (
                f"The protocol `{SUBPROTOCOL}`, by which a broadcaster sends live audio to a relay and listeners "
                "receive it. A client offers the WebSocket subprotocol of that name. Receivers ignore types and "
                "members that they do not know. A proxy may serve all of it under a path of its own."
            ),
            "license": _LICENSE,
        },
        "defaultContentType": "application/json",
        "servers": {
            "relay": {
                "host": "{host}",
                "protocol": "wss",
                "variables": {"host": {"default": "relay.example.org", "description": "The relay, or its proxy."}},
                "security": [_reference("securitySchemes", "token")],
            }
        },
        "channels": {
            f"{role}{'Channel' if depth else ''}": _asyncapi_channel(
                f"/v1/{role}/{{session}}{'/{channel}' if depth else ''}", summary, query, told[0] + told[1]
            )
            for role, summary, query, told in (
                ("listen", "A listener's connection.", _QUERY_OF_A_LISTENER, listener),
                ("broadcast", "The connection of a channel's one broadcaster.", _QUERY_OF_A_BROADCASTER, broadcaster),
            )
            for depth in (0, 1)
        },
        "operations": {
            f"{action}_{channel}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{channel}"},
                "summary": summary,
                "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
            }
            for channels, action, summary, names in (
                (("listen", "listenChannel"), "send", "What the relay tells a listener.", listener[0]),
                (("listen", "listenChannel"), "receive", "What a listener tells the relay.", listener[1]),
                (("broadcast", "broadcastChannel"), "send", "What the relay tells a broadcaster.", broadcaster[0]),
                (("broadcast", "broadcastChannel"), "receive", "What a broadcaster tells the relay.", broadcaster[1]),
            )
            for channel in channels
        },
        "components": {
            "messages": components,
            "schemas": shared_schemas(),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": (
                        "A token or a key, where the relay asks for one. A browser offers it as a second subprotocol, "
                        f"`{TOKEN_SUBPROTOCOL_PREFIX}TOKEN`."
                    ),
                }
            },
        },
    }


def _names(table: Iterable[type[Message]], *more: str) -> list[str]:
    return [*(kind.__name__ for kind in table), *more]


def _asyncapi_message(kind: type[Message], *, is_written_by_relay: bool) -> Json:
    payload = schema_of_record(kind, is_written_by_relay=is_written_by_relay)
    if kind is messages.Ping:
        payload = {**payload, "required": ["type"], "properties": {"type": {"const": kind.TYPE}}}
    return {"name": kind.TYPE, "title": kind.__name__, "summary": payload["description"], "payload": payload}


def _asyncapi_channel(address: str, summary: str, query: Json, names: list[str]) -> Json:
    texts = {"session": "The session's id.", "channel": "The channel's id; `main` when the address names none."}
    return {
        "address": address,
        "summary": summary,
        "parameters": {name: {"description": texts[name]} for name in re.findall("{(.*?)}", address)},
        "messages": {name: _reference("messages", name) for name in names},
        "bindings": {
            "ws": {"method": "GET", "query": {"type": "object", "properties": query}, "bindingVersion": "0.1.0"}
        },
    }


# OpenAPI.

_PARAMETERS: Json = {
    "session": {"name": "session", "in": "path", "required": True, "schema": _ID, "description": "The session's id."},
    "channel": {"name": "channel", "in": "path", "required": True, "schema": _ID, "description": "The channel's id."},
    "connection": {
        "name": "connection",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f-]{36}$"},
        "description": "The `connection_id` of the connection's `hello`.",
    },
}
_REFUSALS = {
    "400": "The request is not of the protocol's form; the text says what is wrong.",
    "401": "Nobody with this token or key may do this, or there is nothing of that.",
    "404": "There is nothing at this address, or it is turned off.",
    "429": "There are too many requests; `Retry-After` says when to try again.",
    "503": (
        "The relay takes no new clients now, or nodes of its cluster do not answer; "
        "`Retry-After` says when to try again."
    ),
}


def openapi() -> Json:
    """Return the OpenAPI document."""
    page = {"text/html": {"schema": {"type": "string"}}}
    sentence = {"text/plain": {"schema": {"type": "string"}}}
    paths: Json = {"/": _get("index", "The page for a person who begins.", page)}
    for name, what in (("listen", "listening"), ("broadcast", "broadcasting")):
        for ids in ("{session}", "{session}/{channel}"):
            paths[f"/{name}/{ids}"] = _get(f"{name}Page", f"The {what} page of a channel.", page, "400")
    for ids in ("{session}", "{session}/{channel}"):
        paths[f"/qr/listen/{ids}.svg"] = _get(
            "qrCode",
            "A QR code of the listening page on the host that the request names.",
            {"image/svg+xml": {"schema": {"type": "string"}}},
            "400",
            query={
                "scheme": {"enum": ["http", "https"], "default": "http"},
                "prefix": {"type": "string", "maxLength": 128, "pattern": r"^(/\.*[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$"},
            },
        )
    for container in Container:
        for ids in ("{session}", "{session}/{channel}"):
            paths[f"/stream/{ids}{container.ending}"] = _stream(container)
    paths |= {
        "/healthz": _get("health", "Tells that the process answers.", sentence),
        "/readyz": _get("readiness", "Tells whether new work is welcome; the text says why not.", sentence, "503"),
        "/metrics": _get(
            "metrics", "The relay's figures for Prometheus, where they are turned on.", sentence, "404", "503"
        ),
        "/asyncapi.json": _get("asyncapi", "The protocol of the WebSockets.", _json({"type": "object"})),
        "/openapi.json": _get("openapi", "This document.", _json({"type": "object"})),
        "/v1/sessions": _operator(get=("listSessions", "All sessions with their channels.", "Sessions")),
        "/v1/sessions/{session}": _operator(
            get=("showSession", "A session, and its listeners that are worst off.", "Session"),
            delete=("endSession", "Ends all channels of a session at once.", "Ended"),
        ),
        "/v1/sessions/{session}/{channel}": _operator(delete=("endChannel", "Ends one channel at once.", "Ended")),
        "/v1/sessions/{session}/connections/{connection}": _operator(
            delete=("disconnect", "Closes one connection.", "Disconnected")
        ),
    }
    used: dict[str, int] = {}
    for path, item in paths.items():
        item["parameters"] = [_reference("parameters", name) for name in re.findall("{(.*?)}", path)]
        for method in ("get", "delete"):
            if method in item:
                name = item[method]["operationId"]
                used[name] = used.get(name, 0) + 1
                item[method]["operationId"] = name if used[name] == 1 else f"{name}OfChannel"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": _TITLE,
            "version": __version__,
            "description": (
                "The HTTP side of a relay: pages, the operator's API, and what a proxy or a monitor asks. HEAD gets "
                "the answer of GET without its body. The WebSockets are described by `/asyncapi.json`."
            ),
            "license": _LICENSE,
        },
        "servers": [{"url": ".", "description": "The relay that this document comes from, also under a path."}],
        "paths": paths,
        "components": {
            "parameters": _PARAMETERS,
            "responses": {
                status: {
                    "description": text,
                    "content": {**sentence, **(page if status in ("400", "404", "429", "503") else {})},
                }
                for status, text in _REFUSALS.items()
            },
            "schemas": {**shared_schemas(), **_operator_schemas()},
            "securitySchemes": {
                "listener": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of role `listen`, for sessions that are not open.",
                },
                "operator": {"type": "http", "scheme": "bearer", "description": "A token of role `admin`, or the key."},
            },
        },
    }


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _get(name: str, text: str, content: Json, *refusals: str, query: Json | None = None) -> Json:
    responses: Json = {"200": {"description": "What was asked for.", "content": content}}
    responses |= {status: _reference("responses", status) for status in (*refusals, "429")}
    operation: Json = {"operationId": name, "summary": text, "responses": responses}
    if query:
        operation["parameters"] = [
            {"name": parameter, "in": "query", "schema": schema} for parameter, schema in query.items()
        ]
    return {"get": operation}


def _stream(container: Container) -> Json:
    item = _get(
        f"{container}Stream",
        f"A channel as {container.media_type}, without an end, for programs that play audio.",
        {container.media_type: {"schema": {"type": "string", "format": "binary"}}},
        *("400", "401", "404", "503"),
        query={"burst_ms": {**_MILLISECONDS, "description": "How much audio from before the request comes first."}},
    )
    item["get"]["security"] = [{}, {"listener": []}]
    return item


def _operator(**operations: tuple[str, str, str]) -> Json:
    return {
        method: {
            "operationId": name,
            "summary": text,
            "security": [{"operator": []}],
            "responses": {
                "200": {"description": "What was found or done.", "content": _json(_reference("schemas", schema))},
                **{status: _reference("responses", status) for status in ("400", "401", "429", "503")},
            },
        }
        for method, (name, text, schema) in operations.items()
    }


def _object(description: str, in_cluster: Json | None = None, **properties: Json) -> Json:
    """Describe an object. `in_cluster` are further members, which only a cluster adds."""
    return {
        "type": "object",
        "description": description,
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties | (in_cluster or {}),
    }


def _nullable(schema: Json) -> Json:
    return {"oneOf": [schema, {"type": "null"}]}


def _operator_schemas() -> Json:
    text, count, number = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "number"}
    node: Json = {"node": {"type": "string", "description": "The node of the cluster that has the connection."}}
    silent: Json = {
        "silent_nodes": {
            "type": "array",
            "items": text,
            "description": "The nodes of the cluster that did not answer. The figures lack theirs.",
        }
    }
    report = schema_of_record(messages.ListenerReport, is_written_by_relay=True)
    del report["properties"]["type"]
    report["required"].remove("type")
    channel = _object(
        "A channel; the counts are since it was first used.",
        id=text,
        name=text,
        lang=_nullable(text),
        state={"enum": [each.value for each in ChannelState]},
        silence=_nullable({"enum": [each.value for each in Silence]}),
        pace={"enum": [each.value for each in Pace]},
        format=_nullable(_reference("schemas", "AudioFormat")),
        listeners=count,
        codec_listeners={"type": "object", "additionalProperties": count},
        broadcaster=_nullable(_object("The broadcaster.", node, connection_id=text, client_address=text)),
        lead_ms=_nullable(number),
        queued_ms=_nullable(count),
        arrival_rate=_nullable(number),
        released_frames=count,
        delivered_frames=count,
        dropped_frames=count,
    )
    listener = _object(
        "A listener.",
        node,
        connection_id=text,
        client_address=text,
        channel=text,
        codec={"enum": [each.value for each in (*Codec, *Container)]},
        framing={"enum": [SUBPROTOCOL, "raw", "http"]},
        lag_ms=count,
        delivered_seconds=number,
        dropped_seconds=number,
        blocked_seconds=number,
        report=_nullable(report),
    )
    channels = {"type": "array", "items": _reference("schemas", "Channel")}
    return {
        "Channel": channel,
        "Listener": listener,
        "Sessions": _object(
            "All sessions.",
            silent,
            sessions={"type": "array", "items": _object("A session.", id=text, channels=channels)},
            not_listed=count,
        ),
        "Session": _object(
            "A session.",
            silent,
            id=text,
            channels=channels,
            not_listed=count,
            listeners=count,
            worst_listeners={"type": "array", "items": _reference("schemas", "Listener")},
        ),
        "Ended": _object("Channels that ended.", silent, session=text, ended={"type": "array", "items": text}),
        "Disconnected": _object(
            "A connection that was closed.",
            silent,
            session=text,
            channel=text,
            disconnected=text,
            role={"enum": ["broadcast", "listen"]},
        ),
    }
