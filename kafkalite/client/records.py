"""What clients hand out: records as they were read, and where a record was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, repeat
from typing import Any, Final, NamedTuple, TypeAlias, overload

import msgspec

from kafkalite.common import TopicPartition

Header: TypeAlias = tuple[str, bytes | None]

CREATE_TIME: Final = 0
LOG_APPEND_TIME: Final = 1


class RecordMetadata(NamedTuple):
    """Where a record was written."""

    topic: str
    partition: int
    topic_partition: TopicPartition
    offset: int
    """-1 where the cluster did not say: `acks=0`, or a duplicate that it no longer remembers."""
    timestamp: int
    """Milliseconds since the Unix epoch."""
    timestamp_type: int
    """0: the producer's time (CreateTime); 1: the leader's (LogAppendTime)."""
    log_start_offset: int | None


class ConsumerRecord(msgspec.Struct, frozen=True, gc=False):
    """One record that was read."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since the Unix epoch."""
    timestamp_type: int
    """0: the producer's time (CreateTime); 1: the leader's (LogAppendTime)."""
    key: Any
    """Bytes, or what `key_deserializer` made of them; None where the record has no key."""
    value: Any
    """Bytes, or what `value_deserializer` made of them; None is a tombstone."""
    headers: Sequence[Header] = ()
    """Pairs of name and value, in the order in which they were sent."""


class Timestamps(Sequence[int]):
    """A column of timestamps that is added up when somebody looks at it.

    In a batch each is a distance from the first. To add them up costs as much as all the rest of reading
    columns, and most readers look at none.
    """

    __slots__ = ("_count", "_parts", "_sums")

    def __init__(self, parts: Sequence[tuple[int, Sequence[int]]]) -> None:
        """``parts``: bases, and what to add to each for one record after the other."""
        self._parts = parts
        self._count = sum(len(deltas) for _, deltas in parts)
        self._sums: list[int] | None = None

    @classmethod
    def joined(cls, columns: Sequence[Sequence[int]]) -> Timestamps:
        """One column for several, in their order."""
        parts: list[tuple[int, Sequence[int]]] = []
        for column in columns:
            parts += column._parts if isinstance(column, Timestamps) else [(0, column)]
        return cls(parts)

    def _all(self) -> list[int]:
        if self._sums is None:
            self._sums = [base + delta for base, deltas in self._parts for delta in deltas]
        return self._sums

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if self._sums is None and len(self._parts) == 1:
            base, deltas = self._parts[0]
            return Timestamps([(base, deltas[index])]) if isinstance(index, slice) else base + deltas[index]
        return self._all()[index]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timestamps | list | tuple) and self._all() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._all())


class RecordColumns(msgspec.Struct, frozen=True, gc=False):
    """Consecutive records of one partition, column by column; element i of each belongs to record i."""

    topic: str
    partition: int
    offsets: Sequence[int]
    """Rising; a range wherever no offset is missing in between."""
    timestamps: Sequence[int]
    """Milliseconds since the Unix epoch."""
    timestamp_types: Sequence[int]
    """0: the producer's time (CreateTime); 1: the leader's (LogAppendTime)."""
    keys: Sequence[Any] | None
    """Bytes, or what `key_deserializer` made of them; None where no record has a key."""
    values: Sequence[Any]
    """Bytes, or what `value_deserializer` made of them; None is a tombstone."""
    headers: Sequence[Sequence[Header]] | None
    """Pairs of name and value; None where no record has any."""

    def __len__(self) -> int:
        return len(self.values)

    def records(self) -> Iterator[ConsumerRecord]:
        """The same records as objects."""
        count = len(self.values)
        # One call of the struct's constructor a record and nothing else: 6 M records a second.
        return map(
            ConsumerRecord,
            repeat(self.topic, count),
            repeat(self.partition),
            self.offsets,
            self.timestamps,
            self.timestamp_types,
            self.keys if self.keys is not None else repeat(None),
            self.values,
            self.headers if self.headers is not None else repeat(()),
        )

    def part(self, start: int, end: int) -> RecordColumns:
        """The records from index ``start`` on and before ``end``."""
        if start == 0 and end >= len(self.values):
            return self
        return RecordColumns(
            self.topic,
            self.partition,
            self.offsets[start:end],
            self.timestamps[start:end],
            self.timestamp_types[start:end],
            self.keys[start:end] if self.keys is not None else None,
            self.values[start:end],
            self.headers[start:end] if self.headers is not None else None,
        )

    @classmethod
    def joined(cls, parts: Sequence[RecordColumns]) -> RecordColumns:
        """One for several of the same partition, in their order."""
        first = parts[0]
        if len(parts) == 1:
            return first
        offsets: Sequence[int]
        if all(isinstance(part.offsets, range) for part in parts) and all(
            part.offsets[0] == before.offsets[-1] + 1 for before, part in pairwise(parts)
        ):
            offsets = range(first.offsets[0], parts[-1].offsets[-1] + 1)
        else:
            offsets = _chained(part.offsets for part in parts)
        keys = headers = None
        if any(part.keys is not None for part in parts):
            keys = _chained(p.keys if p.keys is not None else repeat(None, len(p)) for p in parts)
        if any(part.headers is not None for part in parts):
            headers = _chained(p.headers if p.headers is not None else repeat((), len(p)) for p in parts)
        return cls(
            first.topic,
            first.partition,
            offsets,
            Timestamps.joined([part.timestamps for part in parts]),
            _chained(part.timestamp_types for part in parts),
            keys,
            _chained(part.values for part in parts),
            headers,
        )


def _chained(columns: Iterable[Iterable[Any]]) -> list[Any]:
    joined: list[Any] = []
    for column in columns:
        joined += column
    return joined


class OffsetAndTimestamp(NamedTuple):
    """The first record at or after a time."""

    offset: int
    timestamp: int
    """That record's own timestamp, in milliseconds since the Unix epoch."""


class OffsetAndMetadata(NamedTuple):
    """How far a group has come in a partition."""

    offset: int
    """The offset of the next record to read."""
    metadata: str = ""
    """Whatever the application keeps beside it."""
    leader_epoch: int = -1
    """The leader epoch of the record before it, -1 where it is not known: a truncation shows by it."""
