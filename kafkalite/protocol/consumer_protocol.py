"""What consumers tell one another through their group: subscriptions and assignments.

To the coordinator these are opaque bytes; the consumers of a group, of whatever language and age,
read one another's. So the bytes are Kafka's own: big-endian, strings with an int16 length, arrays
with an int32 one, first the version. A reader takes what it knows and leaves the rest, so that a
newer version adds fields at the end.

=======  =========================================================================================
0        topics, user data
1        owned partitions: what the member holds while it joins
2        the generation in which it came to own them
3        its rack
=======  =========================================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from kafkalite.common import TopicPartition
from kafkalite.edge import Buffer

PROTOCOL_TYPE: Final = "consumer"
"""The protocol type of groups whose members speak this."""
SUBSCRIPTION_VERSION: Final = 3
ASSIGNMENT_VERSION: Final = 3
NO_GENERATION: Final = -1


class MalformedConsumerProtocol(Exception):
    """Bytes that are no subscription or assignment."""


class Subscription(msgspec.Struct, frozen=True):
    """What a member wants and has."""

    topics: tuple[str, ...]
    user_data: bytes | None = None
    """The assignor's own."""
    owned_partitions: tuple[TopicPartition, ...] = ()
    generation_id: int = NO_GENERATION
    """The generation in which it owned them; -1 where it had none, or does not say."""
    rack_id: str | None = None

    def encode(self, version: int = SUBSCRIPTION_VERSION) -> bytes:
        """Write it in ``version``, 0 to 3."""
        parts = [_INT16.pack(version), _INT32.pack(len(self.topics)), *map(_string, self.topics)]
        parts.append(_nullable_bytes(self.user_data))
        if version >= 1:
            parts.append(_partitions(self.owned_partitions))
        if version >= 2:
            parts.append(_INT32.pack(self.generation_id))
        if version >= 3:
            parts.append(_NULL_STRING if self.rack_id is None else _string(self.rack_id))
        return b"".join(parts)

    @staticmethod
    def decode(data: Buffer) -> Subscription:
        """Read any version. Raises MalformedConsumerProtocol."""
        reader = _Reader(data)
        version = reader.version()
        topics = tuple(reader.string() for _ in range(reader.length()))
        return Subscription(
            topics,
            reader.nullable_bytes(),
            reader.partitions() if version >= 1 else (),
            reader.int32() if version >= 2 else NO_GENERATION,
            reader.nullable_string() if version >= 3 else None,
        )


class Assignment(msgspec.Struct, frozen=True):
    """What a member is to own from this generation on."""

    partitions: tuple[TopicPartition, ...]
    user_data: bytes | None = None

    def encode(self, version: int = ASSIGNMENT_VERSION) -> bytes:
        """Write it; all versions up to 3 look the same."""
        return b"".join((_INT16.pack(version), _partitions(self.partitions), _nullable_bytes(self.user_data)))

    @staticmethod
    def decode(data: Buffer) -> Assignment:
        """Read any version; no bytes at all are an empty assignment. Raises MalformedConsumerProtocol."""
        if not len(data):
            return Assignment(())
        reader = _Reader(data)
        reader.version()
        return Assignment(reader.partitions(), reader.nullable_bytes())


_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_NULL_STRING: Final = _INT16.pack(-1)


def _string(text: str) -> bytes:
    data = text.encode()
    return _INT16.pack(len(data)) + data


def _nullable_bytes(data: bytes | None) -> bytes:
    return _INT32.pack(-1) if data is None else _INT32.pack(len(data)) + data


def _partitions(partitions: Sequence[TopicPartition]) -> bytes:
    by_topic: dict[str, list[int]] = {}
    for topic, partition in partitions:
        by_topic.setdefault(topic, []).append(partition)
    return _INT32.pack(len(by_topic)) + b"".join(_of_topic(by_topic))


def _of_topic(by_topic: Mapping[str, Sequence[int]]) -> list[bytes]:
    return [
        _string(topic) + _INT32.pack(len(indexes)) + b"".join(map(_INT32.pack, indexes))
        for topic, indexes in by_topic.items()
    ]


class _Reader:
    """Takes one value after the other off the front."""

    def __init__(self, data: Buffer) -> None:
        self._data = memoryview(data)
        self._at = 0

    def _take(self, size: int) -> memoryview:
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise MalformedConsumerProtocol(f"{len(self._data)} bytes end in the middle of a value")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def int16(self) -> int:
        value: int = _INT16.unpack(self._take(2))[0]
        return value

    def int32(self) -> int:
        value: int = _INT32.unpack(self._take(4))[0]
        return value

    def version(self) -> int:
        version = self.int16()
        if version < 0:
            raise MalformedConsumerProtocol(f"version {version}")
        return version

    def length(self) -> int:
        """An array's length; every element takes at least two bytes, so a larger one is a lie."""
        length = self.int32()
        if length < 0 or 2 * length > len(self._data) - self._at:
            raise MalformedConsumerProtocol(f"an array of {length} elements")
        return length

    def string(self) -> str:
        text = self.nullable_string()
        if text is None:
            raise MalformedConsumerProtocol("a string is null")
        return text

    def nullable_string(self) -> str | None:
        size = self.int16()
        if size == -1:
            return None
        try:
            return bytes(self._take(size)).decode()
        except UnicodeDecodeError:
            raise MalformedConsumerProtocol("a string is not UTF-8") from None

    def nullable_bytes(self) -> bytes | None:
        size = self.int32()
        return None if size == -1 else bytes(self._take(size))

    def partitions(self) -> tuple[TopicPartition, ...]:
        found = []
        for _ in range(self.length()):
            topic = self.string()
            found += [TopicPartition(topic, self.int32()) for _ in range(self.length())]
        return tuple(found)
