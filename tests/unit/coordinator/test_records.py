"""What is written to the log, where it goes, and Kafka's own bytes of subscriptions and assignments."""

from __future__ import annotations

import struct

import msgspec
import pytest

from kafkalite.common import TopicPartition
from kafkalite.coordinator.group.records import (
    GroupKey,
    GroupValue,
    MalformedRecord,
    MemberValue,
    OffsetKey,
    OffsetValue,
    Record,
)
from kafkalite.coordinator.partitioner import java_hash, partition_for
from kafkalite.protocol.consumer_protocol import Assignment, MalformedConsumerProtocol, Subscription

MEMBER = MemberValue("m", None, "client", "/127.0.0.1", 300_000, 45_000, b"wants", b"has")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0),
        ("a", 97),
        ("hello", 99162322),
        ("polygenelubricants", -(2**31)),
        ("\N{GRINNING FACE}", 31 * 0xD83D + 0xDE00),
    ],
)
def test_javas_hash(text: str, value: int) -> None:
    assert java_hash(text) == value


@pytest.mark.parametrize(("group", "partition"), [("hello", 22), ("polygenelubricants", 0), ("a", 47)])
def test_kafkas_partition_of_a_group(group: str, partition: int) -> None:
    assert partition_for(group, 50) == partition


@pytest.mark.parametrize(
    "record",
    [
        Record(OffsetKey("g", "orders", 3), OffsetValue(42, 7, "note", 1_700_000_000_000)),
        Record(OffsetKey("g", "orders", 3), None),
        Record(GroupKey("g"), GroupValue("consumer", 5, "range", "m", 1, (MEMBER,))),
        Record(GroupKey("g"), GroupValue("consumer", 6, None, None, 1, ())),
        Record(GroupKey("g"), None),
    ],
)
def test_records_come_back_as_they_went(record: Record) -> None:
    key, value = record.encode()
    assert Record.decode(key, value) == record


def encode(*values: object) -> bytes:
    return msgspec.msgpack.encode(values)


def test_newer_versions_may_add_elements_and_kinds() -> None:
    found = Record.decode(encode(1, "g", "t", 0, "more"), encode(3, 5, -1, "", 0, "more"))
    assert found == Record(OffsetKey("g", "t", 0), OffsetValue(5, -1, "", 0))
    assert Record.decode(encode(7, "g"), encode(0)) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"", b""),
        (b"\xc1", b""),
        (encode(1, "g"), encode(3, 5, -1, "", 0)),
        (encode(1, "g", "t", 0), encode(9, 5, -1, "", 0)),
        (encode(1, "g", "t", 0), b"\xc1"),
        (encode(2, "g"), encode(3, "consumer", 1, None, None, 0, [["m"]])),
        (encode("g"), None),
    ],
)
def test_what_is_no_record_is_refused(key: bytes, value: bytes | None) -> None:
    with pytest.raises(MalformedRecord):
        Record.decode(key, value)


OWNED = (TopicPartition("orders", 0), TopicPartition("orders", 2), TopicPartition("payments", 1))


def test_a_subscription_is_written_as_kafka_writes_it() -> None:
    subscription = Subscription(("orders",), b"\x07", (TopicPartition("orders", 2),), 5, "r1")
    assert subscription.encode() == (
        struct.pack(">hih6s", 3, 1, 6, b"orders")
        + struct.pack(">i1s", 1, b"\x07")
        + struct.pack(">ih6sii", 1, 6, b"orders", 1, 2)
        + struct.pack(">i", 5)
        + struct.pack(">h2s", 2, b"r1")
    )
    assert Assignment((TopicPartition("orders", 2),)).encode(0) == (
        struct.pack(">hih6sii", 0, 1, 6, b"orders", 1, 2) + struct.pack(">i", -1)
    )


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_every_version_of_a_subscription_is_read(version: int) -> None:
    whole = Subscription(("orders", "payments"), None, OWNED, 5, "r1")
    found = Subscription.decode(whole.encode(version))
    assert found.topics == whole.topics
    assert found.owned_partitions == (OWNED if version >= 1 else ())
    assert found.generation_id == (5 if version >= 2 else -1)
    assert found.rack_id == ("r1" if version >= 3 else None)
    # One from the future has more at its end.
    assert Subscription.decode(struct.pack(">h", 9) + whole.encode(3)[2:] + b"more") == whole


def test_assignments() -> None:
    assert Assignment.decode(Assignment(OWNED, b"x").encode()) == Assignment(OWNED, b"x")
    assert Assignment.decode(b"") == Assignment(())


def test_bytes_cut_short_are_refused() -> None:
    whole = Subscription(("orders",), b"u", OWNED, 5, "r1").encode()
    for length in range(len(whole)):
        with pytest.raises(MalformedConsumerProtocol):
            Subscription.decode(whole[:length])
    with pytest.raises(MalformedConsumerProtocol):
        Subscription.decode(struct.pack(">hi", 0, 2**31 - 1))
