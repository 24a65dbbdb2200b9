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
from functools import cache
from typing import Final, NamedTuple, TypeVar

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


_WHERE: Final = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_EXPECTED: Final = re.compile(r"^Expected `(?P<expected>.*?)`(?:, got `(?P<got>.*)`)?$")
_KINDS: Final = {"object": "map", "null": "nil"}
"""MessagePack's own words where the decoder speaks of JSON."""


def _schema_error(text: str) -> SchemaError:
    """Take the decoder's message apart into the field's path and the reason."""
    match = _WHERE.match(text)
    assert match is not None, "the pattern matches any text"
    path = (match["path"] or "").lstrip(".")
    missing = _MISSING.match(match["what"])
    if missing is not None:
        return SchemaError(f"{path}.{missing['name']}".lstrip("."), "required field is missing")
    return SchemaError(path or None, _plain(match["what"]))


def _plain(what: str) -> str:
    match = _EXPECTED.match(what)
    if match is None:
        if what == "Input data was truncated":
            return "the MessagePack data ends too early"
        return what[:1].lower() + what[1:] if not what.startswith("MessagePack") else what
    expected = " or ".join(_KINDS.get(kind, kind) for kind in match["expected"].split(" | "))
    got = match["got"]
    return f"expected {expected}" + (f", got {_KINDS.get(got, got)}" if got else "")


# --- Encoding --------------------------------------------------------------------------------


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
    if not any(field.is_records or field.inside for field in fields):
        return None
    header = bytearray()
    _put_header(header, len(fields), fix=0x80, fix_max=15, wide=0xDE)
    records_last = fields[-1].is_records and not any(f.is_records or f.inside for f in fields[:-1])
    return _Plan(bytes(header), tuple(fields), records_last)


def encode(message: Message) -> list[Buffer]:
    """Write ``message`` as MessagePack, in pieces to be sent one after another.

    Record batches are pieces of their own, the very buffers that the message holds.
    """
    plan = _plan(type(message))
    if plan is None:
        return [_ENCODER.encode(message)]
    pieces: list[Buffer] = []
    rest = _write(plan, message, bytearray(), pieces)
    if rest:
        pieces.append(rest)
    return pieces


def _write(plan: _Plan, value: msgspec.Struct, head: bytearray, pieces: list[Buffer]) -> bytearray:
    """Append ``value`` to ``head``, moving what is finished to ``pieces``; return the open head."""
    if plan.records_last:
        field = plan.fields[-1]
        records = getattr(value, field.name)
        # Without its records the struct is small and ends in one nil, which makes way for them.
        bare = value if records is None else msgspec.structs.replace(value, **{field.name: None})
        _ENCODER.encode_into(bare, head, -1)
        if records is not None:
            del head[-1]
            head = _put_records(records, head, pieces)
        return head
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
