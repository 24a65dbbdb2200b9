"""The codec against one plain encoding, over messages of every shape."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kafkalite.protocol.api import APIS
from kafkalite.protocol.codec import SchemaError, decode, encode, to_json
from kafkalite.protocol.message import Message

PLAIN = msgspec.msgpack.Encoder()
TYPES = [message for api in APIS.values() for message in (api.request, api.response)]

relaxed = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def values_of(info: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a field's type, at the ends of its range too."""
    match info:
        case msgspec.inspect.UnionType(types=types):
            return st.one_of(*(values_of(kind) for kind in types))
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.IntType(ge=ge, le=le):
            return st.integers(ge, le)
        case msgspec.inspect.StrType():
            return st.text(max_size=40)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.BytesType():
            return st.binary(max_size=300)
        case msgspec.inspect.MemoryViewType():
            sizes = st.sampled_from([0, 1, 255, 256, 65535, 65536])
            return st.one_of(st.binary(max_size=30), sizes.map(bytes)).map(memoryview)
        case msgspec.inspect.ListType(item_type=item):
            # 15 and 16 elements are either side of MessagePack's short header.
            if isinstance(item, msgspec.inspect.StructType):
                return st.one_of(
                    st.lists(values_of(item), max_size=3), values_of(item).map(lambda value: [value] * 16)
                )
            return st.lists(values_of(item), max_size=17)
        case msgspec.inspect.StructType(cls=cls):
            return messages_of(cls)
        case _:
            raise AssertionError(f"no values for {info}")


def messages_of(struct: type[Any]) -> st.SearchStrategy[Any]:
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    return st.builds(struct, **{field.name: values_of(field.type) for field in info.fields})


@pytest.mark.parametrize("message_type", TYPES, ids=lambda kind: kind.__name__)
@relaxed
@given(data=st.data())
def test_pieces_are_the_plain_encoding_and_read_back(
    message_type: type[Message], data: st.DataObject
) -> None:
    message = data.draw(messages_of(message_type))
    body = b"".join(encode(message))
    assert body == PLAIN.encode(message)
    assert decode(message_type, body) == message
    assert msgspec.json.decode(to_json(message)) == msgspec.to_builtins(message)


@pytest.mark.parametrize("message_type", TYPES, ids=lambda kind: kind.__name__)
@relaxed
@given(data=st.data())
def test_damaged_bytes_are_refused_or_are_another_message(
    message_type: type[Message], data: st.DataObject
) -> None:
    body = bytearray(PLAIN.encode(data.draw(messages_of(message_type))))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(body) - 1))
        if data.draw(st.booleans()):
            body[position] = data.draw(st.integers(0, 255))
        else:
            del body[position:]
            break
    with suppress(SchemaError):  # Whatever else is raised would be a server's fault, not the client's.
        assert isinstance(decode(message_type, body), message_type)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_schema_error(body: bytes) -> None:
    for message_type in TYPES:
        with suppress(SchemaError):
            assert isinstance(decode(message_type, body), message_type)
