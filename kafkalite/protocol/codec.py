"""Messages to bytes and back: MessagePack on the wire, JSON and query parameters for people.

Every message type has one typed encoder and decoder, built once. What does not fit a type is
refused with the path of the field and the reason, which a server hands back as it stands.

Messages that carry record batches (produce requests, fetch responses) are encoded as a list of
buffers: the MessagePack around the batches, a `bin` header before each, and the batches
themselves as they lie, never copied. The pieces put together are byte for byte what one plain
encoding of the message would have been. Decoding leaves `records` as a memoryview of the body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from kafkalite.edge import Buffer
from kafkalite.protocol.message import Message

M = TypeVar("M", bound=Message)


class SchemaError(Exception):
    """Bytes or query parameters that are not the message they should be."""

    def __init__(self, field: str | None, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        """The path of the offending field (`topic_data[0].name`), None where it is the whole body."""
        self.message = message
        """What is wrong, in words."""


_ENCODER: Final = msgspec.msgpack.Encoder()
_JSON: Final = msgspec.json.Encoder()


@cache
def _decoder(type_: type[M]) -> msgspec.msgpack.Decoder[M]:
    return msgspec.msgpack.Decoder(type_)


def decode(type_: type[M], body: Buffer) -> M:
    """Read one message that fills ``body`` exactly.

    Fields of bytes are memoryviews into ``body``, which must not change while they are in use.
    Raises SchemaError.
    """
    try:
        message: M = _decoder(type_).decode(body)
        return message
    except msgspec.ValidationError as error:
        raise _schema_error(str(error)) from None
    except msgspec.DecodeError as error:
        raise SchemaError(None, _plain(str(error))) from None
    except UnicodeDecodeError as error:
        raise SchemaError(None, f"a string is not UTF-8: {error.reason}") from None
    except RecursionError:
        raise SchemaError(None, "nested too deeply") from None


def to_json(message: msgspec.Struct) -> bytes:
    """Write ``message`` as JSON; bytes become base64."""
    return _JSON.encode(message)


_WHERE: Final = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_EXPECTED: Final = re.compile(r"^Expected `(?P<expected>.*?)`(?P<bound>.*?)(?:, got `(?P<got>.*)`)?$")
_KINDS: Final = {"object": "map", "null": "nil", "None": "nil"}
"""MessagePack's own words where the decoder speaks of JSON."""


def _schema_error(text: str) -> SchemaError:
    """Take the decoder's message apart into the field's path and the reason."""
    match = _WHERE.match(text)
    assert match is not None, "the pattern matches any text"
    path = (match["path"] or "").lstrip(".")
    missing = _MISSING.match(match["what"])
    if missing is not None:
        return SchemaError(f"{path}.{missing['name']}".lstrip("."), "required field is missing")
    what = _plain(match["what"])
    return SchemaError(path or None, f"the name of a field: {what}" if match["key"] else what)


def _plain(what: str) -> str:
    match = _EXPECTED.match(what)
    if match is None:
        if what == "Input data was truncated":
            return "the MessagePack data ends too early"
        return what[:1].lower() + what[1:] if not what.startswith("MessagePack") else what
    expected = " or ".join(_KINDS.get(kind, kind) for kind in match["expected"].split(" | "))
    got = match["got"]
    return f"expected {expected}{match['bound']}" + (f", got {_KINDS.get(got, got)}" if got else "")


# --- Query parameters ------------------------------------------------------------------------


class _Leaf(NamedTuple):
    """A place in a request that a query parameter can fill."""

    path: tuple[str, ...]
    type: msgspec.inspect.Type
    """The type of one value, where the place takes a list: of its elements."""


_IDENTIFYING: Final = ("name", "topic", "{}", "{}_index", "{}_name")
"""The field that says which element of a list is meant; {} is the list's name in the singular."""

_ABSENT: Final[Mapping[str, int]] = MappingProxyType(
    {"replica_id": -1, "timestamp": -1, "allow_auto_topic_creation": False}
)
"""What an absent parameter means where the default, or zero, would be a surprise: who asks is a
consumer, not broker 0; the offset wanted is the latest, not that of 1970; a GET creates nothing."""


def from_query(type_: type[M], query: Mapping[str, Sequence[str]]) -> M:
    """Read a request from the query parameters of a GET.

    A parameter names a field: at the top (`isolation_level`), further in by its path
    (`topics.partitions.timestamp`) or, where that is the shallowest such field, by its last
    name alone (`timestamp`). The elements of a list of structs go by its name in the singular
    (`topic=a&topic=b`). Inside such a list, n values of a field make n elements, and one value
    holds for all; a list inside a list is the same in each. Fields that are absent take their
    default, else zero (but for :data:`_ABSENT`); unknown parameters are ignored. Raises
    SchemaError.
    """
    leaves = _leaves(type_)
    values: dict[tuple[str, ...], tuple[str, ...]] = {}
    for name, given in query.items():
        leaf = leaves.get(name)
        if leaf is not None and given:
            values[leaf.path] = (*values.get(leaf.path, ()), *given)
    root = msgspec.inspect.type_info(type_)
    assert isinstance(root, msgspec.inspect.StructType)
    try:
        return msgspec.convert(_rows(root, (), values)[0], type_)
    except msgspec.ValidationError as error:
        raise _schema_error(str(error)) from None


def _bare(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """The type without its nil."""
    if isinstance(kind, msgspec.inspect.UnionType):
        return next(k for k in kind.types if not isinstance(k, msgspec.inspect.NoneType))
    return kind


@cache
def _leaves(type_: type[msgspec.Struct]) -> Mapping[str, _Leaf]:
    """Every name that a parameter may have; of two places with one name the shallower counts."""
    leaves: dict[str, _Leaf] = {}
    level: list[tuple[tuple[str, ...], type[msgspec.Struct]]] = [((), type_)]
    while level:
        deeper = []
        for path, struct in level:
            info = msgspec.inspect.type_info(struct)
            assert isinstance(info, msgspec.inspect.StructType)
            for field in info.fields:
                place = (*path, field.name)
                kind = _bare(field.type)
                item = kind.item_type if isinstance(kind, msgspec.inspect.ListType) else kind
                if isinstance(item, msgspec.inspect.StructType):
                    deeper.append((place, item.cls))
                    continue
                names = [".".join(place), field.name]
                if item is not kind:
                    names.append(field.name.removesuffix("s"))
                if path and field.name == _identifying(info, path):
                    names += [path[-1], path[-1].removesuffix("s")]
                for name in names:
                    leaves.setdefault(name, _Leaf(place, item))
        level = deeper
    return MappingProxyType(leaves)


def _identifying(info: msgspec.inspect.StructType, path: tuple[str, ...]) -> str | None:
    """The field of a list's element that says which one it is."""
    names = {field.name for field in info.fields}
    singular = path[-1].removesuffix("s")
    return next((n for n in (form.format(singular) for form in _IDENTIFYING) if n in names), None)


def _rows(
    info: msgspec.inspect.StructType, path: tuple[str, ...], values: Mapping[tuple[str, ...], tuple[str, ...]]
) -> list[dict[str, Any]]:
    """Build the structs at ``path``: as many as their most often given field has values."""
    columns: dict[str, list[Any]] = {}
    shared: dict[str, Any] = {}
    for field in info.fields:
        place = (*path, field.name)
        kind = _bare(field.type)
        item = kind.item_type if isinstance(kind, msgspec.inspect.ListType) else kind
        if isinstance(item, msgspec.inspect.StructType):
            if any(given[: len(place)] == place for given in values):
                rows = _rows(item, place, values)
                shared[field.name] = rows if item is not kind else rows[0]
            elif field.required:
                shared[field.name] = [] if item is not kind else _rows(item, place, values)[0]
        elif place in values:
            given = [_parse(".".join(place), text, item) for text in values[place]]
            if item is not kind:
                shared[field.name] = given
            else:
                columns[field.name] = given
        elif field.name in _ABSENT:
            shared[field.name] = _ABSENT[field.name]
        elif field.required:
            if path and field.name == _identifying(info, path):
                raise SchemaError(".".join(place), "required parameter is missing")
            shared[field.name] = [] if item is not kind else _zero(field.type)
    count = max((len(column) for column in columns.values()), default=1)
    if not path and count > 1:
        name = next(name for name, column in columns.items() if len(column) > 1)
        raise SchemaError(name, f"given {count} times, takes one value")
    for name, column in columns.items():
        if len(column) == 1:
            columns[name] = column * count
        elif len(column) != count:
            raise SchemaError(
                ".".join((*path, name)), f"{len(column)} values where another field has {count}"
            )
    return [{**shared, **{name: column[index] for name, column in columns.items()}} for index in range(count)]


def _parse(name: str, text: str, kind: msgspec.inspect.Type) -> Any:
    """Read one value as ``kind`` says; whether it is in range, the conversion to the struct says."""
    if isinstance(kind, msgspec.inspect.IntType):
        try:
            return int(text)
        except ValueError:
            raise SchemaError(name, f"expected int, got {text[:40]!r}") from None
    if isinstance(kind, msgspec.inspect.BoolType):
        if text.lower() not in ("true", "1", "false", "0"):
            raise SchemaError(name, f"expected true or false, got {text[:40]!r}")
        return text.lower() in ("true", "1")
    return text


def _zero(kind: msgspec.inspect.Type) -> Any:
    """What an absent field without a default is: nil where that is allowed."""
    if isinstance(kind, msgspec.inspect.UnionType):
        return None
    if isinstance(kind, msgspec.inspect.BoolType):
        return False
    return 0 if isinstance(kind, msgspec.inspect.IntType) else ""


# --- Encoding --------------------------------------------------------------------------------


_COPIED_BYTES: Final = 4096
"""Records up to this size are copied: that costs less than a piece of their own."""


class _Field(NamedTuple):
    name: str
    key: bytes
    """The name as MessagePack."""
    inside: _Plan | None
    """How to write the structs of this list that hold records; None for a field that holds none."""
    is_records: bool


class _Plan(NamedTuple):
    """How to write a struct that holds records, itself or further in."""

    header: bytes
    fields: tuple[_Field, ...]
    carriers: tuple[_Field, ...]
    """Those of the fields that hold records, themselves or further in."""
    records_last: bool
    """`records` is the last field, so all before it can be encoded in one go."""


@cache
def _plan(struct: type[msgspec.Struct]) -> _Plan | None:
    """Work out once where ``struct`` holds records; None where it does not."""
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    fields = []
    for field in info.fields:
        kind = field.type
        kinds = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
        is_records = any(isinstance(k, msgspec.inspect.MemoryViewType) for k in kinds)
        inside = None
        if isinstance(kind, msgspec.inspect.ListType) and isinstance(
            kind.item_type, msgspec.inspect.StructType
        ):
            inside = _plan(kind.item_type.cls)
        fields.append(_Field(field.name, _ENCODER.encode(field.encode_name), inside, is_records))
    carriers = tuple(field for field in fields if field.is_records or field.inside)
    if not carriers:
        return None
    header = bytearray()
    _put_header(header, len(fields), fix=0x80, fix_max=15, wide=0xDE)
    records_last = fields[-1].is_records and len(carriers) == 1
    return _Plan(bytes(header), tuple(fields), carriers, records_last)


def encode(message: Message) -> list[Buffer]:
    """Write ``message`` as MessagePack, in pieces to be sent one after another.

    Record batches, but for small ones, are pieces of their own, the very buffers that the message
    holds.
    """
    plan = _plan(type(message))
    if plan is None or not _holds_a_piece(plan, message):
        return [_ENCODER.encode(message)]
    pieces: list[Buffer] = []
    rest = _write(plan, message, bytearray(), pieces)
    if rest:
        pieces.append(rest)
    return pieces


def _holds_a_piece(plan: _Plan, value: msgspec.Struct) -> bool:
    """Whether any records in ``value`` are too large to be copied."""
    for field in plan.carriers:
        content = getattr(value, field.name)
        if field.inside is not None:
            for item in content:
                if _holds_a_piece(field.inside, item):
                    return True
        elif content is not None and len(content) > _COPIED_BYTES:
            return True
    return False


def _write(plan: _Plan, value: msgspec.Struct, head: bytearray, pieces: list[Buffer]) -> bytearray:
    """Append ``value`` to ``head``, moving what is finished to ``pieces``; return the open head."""
    if plan.records_last:
        field = plan.fields[-1]
        records = getattr(value, field.name)
        if records is None or len(records) <= _COPIED_BYTES:
            _ENCODER.encode_into(value, head, -1)
            return head
        # Without its records the struct is small and ends in one nil, which makes way for them.
        bare = msgspec.structs.replace(value, **{field.name: None})
        _ENCODER.encode_into(bare, head, -1)
        del head[-1]
        return _put_records(records, head, pieces)
    head += plan.header
    for field in plan.fields:
        head += field.key
        content = getattr(value, field.name)
        if field.inside is not None:
            _put_header(head, len(content), fix=0x90, fix_max=15, wide=0xDC)
            for item in content:
                head = _write(field.inside, item, head, pieces)
        elif field.is_records and content is not None:
            head = _put_records(content, head, pieces)
        else:
            _ENCODER.encode_into(content, head, -1)
    return head


def _put_records(records: Buffer, head: bytearray, pieces: list[Buffer]) -> bytearray:
    """Write the `bin` header, close ``head``, add the batches as they lie; return a new head."""
    size = len(records) if not isinstance(records, memoryview) else records.nbytes
    if size < 2**8:
        head += b"\xc4" + size.to_bytes(1, "big")
    elif size < 2**16:
        head += b"\xc5" + size.to_bytes(2, "big")
    else:
        head += b"\xc6" + size.to_bytes(4, "big")
    pieces.append(head)
    if size:
        pieces.append(records)
    return bytearray()


def _put_header(head: bytearray, count: int, *, fix: int, fix_max: int, wide: int) -> None:
    """Write a map's or an array's header: the short form, or the 16 or 32 bit one."""
    if count <= fix_max:
        head.append(fix | count)
    elif count < 2**16:
        head.append(wide)
        head += count.to_bytes(2, "big")
    else:
        head.append(wide + 1)
        head += count.to_bytes(4, "big")
