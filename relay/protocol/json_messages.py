"""Encode and decode control messages: JSON objects in text messages, with `type` first.

A message is a frozen dataclass derived from `Message`. Its fields are the members on the wire, and their annotations
are the wire's types. A field with a default may be missing or null. `relay.protocol.messages` defines all messages.

Invariant: whatever a peer sends, reading it either returns a value or raises a `PeerError`.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from enum import StrEnum
from functools import cached_property, partial
from types import MappingProxyType, NoneType
from typing import Any, ClassVar, Self, TypeVar, get_args, get_origin, get_type_hints

from relay.protocol.wire import MAX_TEXT_BYTES
from relay.vocabulary.errors import BadRequestError, PolicyError

ControlMessage = Mapping[str, Any]
"""A control message of any type, as parsed JSON."""

MAX_NESTING = 32
"""Limit on the depth of arrays and objects in a control message. Python's JSON decoder accepts deeper values than its
encoder, which has to repeat a `ping`. No message of the protocol is deeper than 3."""

write_json = json.JSONEncoder(separators=(",", ":")).encode
"""Write any value as JSON on one line, without spaces."""

R = TypeVar("R", bound="Record")
_Word = TypeVar("_Word", bound=StrEnum)


def encode(message_type: str, /, **members: object) -> str:
    """Write a control message of any type. The members follow `type` in the given order."""
    return write_json({"type": message_type, **members})


def decode(text: str, max_bytes: int = MAX_TEXT_BYTES) -> ControlMessage:
    """Read a control message of any type.

    Raises:
        PolicyError: The text is over `max_bytes`, is not JSON or not an object, its `type` is not a string, a number is
            beyond the range of a double, or it is nested deeper than `MAX_NESTING`.
    """
    size = len(text.encode())
    if size > max_bytes:
        raise PolicyError(f"A control message has {size} bytes, more than the limit of {max_bytes}.")
    try:
        message = json.loads(text, parse_float=_finite, parse_int=_finite_integer, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise PolicyError("A control message is not valid JSON.") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise PolicyError('A control message must be a JSON object with a string "type".')
    if text.count("[") + text.count("{") > MAX_NESTING and _is_nested_deeper(message, MAX_NESTING):
        raise PolicyError(f"A control message has more than {MAX_NESTING} levels of arrays and objects.")
    return message


def _is_nested_deeper(value: object, levels: int) -> bool:
    """Whether a value has more than this many levels of arrays and objects. It descends at most one level further."""
    if not isinstance(value, dict | list):
        return False
    members = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_nested_deeper(member, levels - 1) for member in members)


def _finite_integer(number: str) -> int:
    _finite(number)
    return int(number)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        # Python would write it back as invalid JSON.
        raise PolicyError(f"A control message has the number {number:.20}, which is not finite.")
    return value


class UnusableError(PolicyError):
    """A value is missing or of the wrong type. The text names the member if it is nested in another.

    `Message.read` turns it into a sentence for the peer.
    """


def read_exactly(kind: type, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value that has the given type in JSON, too.

    Raises:
        UnusableError: It has another type.
    """
    if type(value) is not kind:
        raise UnusableError
    return value


def read_number(value: object) -> float:
    """Return a number as a float. JSON may write it without a decimal point.

    Raises:
        UnusableError: It is not a number.
    """
    if type(value) is not int and type(value) is not float:
        raise UnusableError
    return float(value)


def _read_word(kind: type[_Word], value: object) -> _Word:
    return kind(read_exactly(str, value))


def _read_known_word(kind: type[_Word], value: Any) -> _Word | None:  # noqa: ANN401 - any JSON value
    """Return a word. A value that only a newer version knows becomes None."""
    return kind(value) if value in list(kind) else None


def _read_list(kind: type[R], value: object) -> "RecordList[R]":
    return RecordList(kind.read_members(each) for each in read_exactly(list, value) if isinstance(each, dict))


def _write_list(records: tuple[R, ...]) -> str:
    return (records if isinstance(records, RecordList) else RecordList(records)).text


def _write_nullable(write: Callable[[Any], str], value: object) -> str:
    return "null" if value is None else write(value)


def on_wire(
    name: str | None = None,
    *,
    is_required: bool = False,
    read: Callable[[Any], Any] | None = None,
    write: Callable[[Any], str] | None = None,
) -> dict[str, Any]:
    """Return the `metadata` of a field whose name, requiredness, bounds or encoding differs on the wire."""
    return {"name": name, "is_required": is_required, "read": read, "write": write}


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a message.

    Attributes:
        name: Its name on the wire.
        attribute: The dataclass's field.
        kind: The type of a value that is not null.
        is_nullable: Whether the value may be null.
        is_required: Whether a message without it is rejected.
        default: The field's value if it is missing. None if it is required.
        read: Converts a JSON value other than null to the field's value.
        write: Writes the field's value as JSON.
    """

    name: str
    attribute: str
    kind: Any
    is_nullable: bool
    is_required: bool
    default: Any
    read: Callable[[Any], Any]
    write: Callable[[Any], str]


_layouts: dict[type, tuple[tuple[Member, ...], str]] = {}


def layout_of(kind: type["Record"]) -> tuple[tuple[Member, ...], str]:
    """Return a record type's members in wire order, and its JSON text with `%s` for each value."""
    layout = _layouts.get(kind)
    if layout is None:
        hints = get_type_hints(kind)
        members = tuple(_describe(each, hints[each.name]) for each in fields(kind))  # type: ignore[arg-type]
        fixed = {"type": kind.TYPE, **kind.ALWAYS} if issubclass(kind, Message) else {}
        texts = [f"{write_json(name)}:{write_json(value)}" for name, value in fixed.items()]
        texts += [f"{write_json(each.name)}:%s" for each in members]
        layout = _layouts[kind] = members, f"{{{','.join(texts)}}}"
    return layout


def _describe(each: Field[Any], hint: Any) -> Member:  # noqa: ANN401 - any type hint
    is_nullable = NoneType in get_args(hint)
    kind = get_args(hint)[0] if is_nullable else hint
    says = each.metadata
    has_default = each.default is not MISSING and not says.get("is_required")
    write = says.get("write") or _writer(kind)
    return Member(
        says.get("name") or each.name,
        each.name,
        kind,
        is_nullable=is_nullable,
        is_required=not has_default and not is_nullable,
        default=each.default if has_default else None,
        read=says.get("read") or _reader(kind, is_nullable=is_nullable),
        write=partial(_write_nullable, write) if is_nullable else write,
    )


def _reader(kind: Any, *, is_nullable: bool) -> Callable[[Any], Any]:  # noqa: ANN401 - any type hint
    if get_origin(kind) is tuple:
        return partial(_read_list, get_args(kind)[0])
    if issubclass(kind, StrEnum):
        return partial(_read_known_word if is_nullable else _read_word, kind)
    return read_number if kind is float else partial(read_exactly, kind)


def _writer(kind: Any) -> Callable[[Any], str]:  # noqa: ANN401 - any type hint
    if get_origin(kind) is tuple:
        return _write_list
    # The same output as `json`, without its overhead for each value.
    return {int: int.__repr__, float: repr, bool: {False: "false", True: "true"}.__getitem__}.get(kind, write_json)


class Record:
    """A JSON object of the protocol. The base of frozen dataclasses."""

    __slots__ = ()

    @classmethod
    def read_members(cls, members: Mapping[str, Any]) -> Self:
        """Read the members.

        Raises:
            UnusableError: A member is missing or of the wrong type. The text is its name.
            PolicyError: A member has an unknown value.
        """
        values = []
        for each in layout_of(cls)[0]:
            value = members.get(each.name)
            if value is None and not each.is_required:
                values.append(each.default)
                continue
            try:
                values.append(each.read(value))
            except UnusableError as error:
                raise UnusableError(str(error) or each.name) from error
            except ValueError as error:
                raise PolicyError(f"The {each.name} {value!r} is unknown to this version.") from error
        return cls(*values)

    def text(self) -> str:
        """Write the record as JSON."""
        members, template = layout_of(type(self))
        return template % tuple([each.write(getattr(self, each.attribute)) for each in members])


class RecordList(tuple[R, ...]):  # noqa: SLOT001 - it keeps its text
    """Records that are written once for all messages that list them."""

    @cached_property
    def text(self) -> str:
        """The list as JSON."""
        return f"[{','.join(each.text() for each in self)}]"


class Message(Record):
    """The base of all control messages.

    Attributes:
        TYPE: Its `type` on the wire.
        ALWAYS: Members that are the same in every message of this type. No client needs to read them.
        USAGE: A sentence that shows the correct form, for messages whose errors do not end the connection.
    """

    __slots__ = ()

    TYPE: ClassVar[str]
    ALWAYS: ClassVar[Mapping[str, object]] = MappingProxyType({})
    USAGE: ClassVar[str] = ""

    @classmethod
    def read(cls, control: ControlMessage) -> Self:
        """Read a message of this type.

        Raises:
            PolicyError: A member is missing or unusable. The text names it.
            BadRequestError: The same, for a message with `USAGE`. The connection stays open.
        """
        try:
            return cls.read_members(control)
        except UnusableError as error:
            if cls.USAGE:
                raise BadRequestError(cls.USAGE) from error
            raise PolicyError(f"The {cls.TYPE} message lacks a valid {str(error)!r}.") from error
