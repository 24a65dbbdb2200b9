"""What clients hand out: records as they were read, and where a record was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

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


class OffsetAndTimestamp(NamedTuple):
    """The first record at or after a time."""

    offset: int
    timestamp: int
    """That record's own timestamp, in milliseconds since the Unix epoch."""
