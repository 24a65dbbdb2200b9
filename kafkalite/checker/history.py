"""The events of a history, and their form in a file: one JSON object a line.

A *value* is the number of one record, unique in the whole history. Offsets and positions are those of
Kafka: the first record of a partition has offset 0. ``at`` is a time in seconds on one clock for the
whole history; it is for people, the order of the events is what counts.

Members of consumer groups note, beside what they are handed, what they hear from their coordinator and
what they ask of it: each try of a commit is one event, with a *number* that its answer repeats. A consumer
that is started anew has a new name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import msgspec

from kafkalite.common import TopicPartition


class Sent(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="sent"):
    """A producer was handed a record. Its records for one partition are sent in this order."""

    producer: str
    topic: str
    partition: int
    value: int
    at: float = 0.0


class Acknowledged(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="acknowledged"):
    """The record was acknowledged; ``offset`` is -1 where the cluster did not say."""

    value: int
    offset: int
    at: float = 0.0


class Failed(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="failed"):
    """It is certain that the record was not written."""

    value: int
    at: float = 0.0


class Unknown(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="unknown"):
    """The producer gave up; whether the record was written is not known."""

    value: int
    at: float = 0.0


class Positioned(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="positioned"):
    """A consumer was told to read a partition from ``offset`` on."""

    consumer: str
    topic: str
    partition: int
    offset: int
    at: float = 0.0


class Polled(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="polled"):
    """A consumer was handed records of one partition, in this order."""

    consumer: str
    topic: str
    partition: int
    offsets: list[int]
    values: list[int]
    at: float = 0.0


class Lost(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="lost"):
    """A broker wrote a loss receipt: it threw these offsets away, ``last`` inclusive."""

    topic: str
    partition: int
    first: int
    last: int
    at: float = 0.0


class Ended(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="ended"):
    """The last reading is done: everything below ``offset`` was read by somebody who began at 0."""

    topic: str
    partition: int
    offset: int
    at: float = 0.0


class Joined(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="joined"):
    """A consumer's join was answered: under this member id it is in the generation that forms."""

    consumer: str
    group: str
    member: str
    generation: int
    instance: str | None = None
    """The group instance id of a static member."""
    at: float = 0.0


class Assigned(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="assigned"):
    """The coordinator told a member which partitions are its own in a generation: these, no others.

    What it had before and is not among them it still has to give up: :class:`Revoked` or
    :class:`Disowned` says when it has.
    """

    consumer: str
    group: str
    member: str
    generation: int
    partitions: list[tuple[str, int]]
    instance: str | None = None
    at: float = 0.0


class Revoked(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="revoked"):
    """A member gave partitions up in good order: it reads nothing more of them."""

    consumer: str
    group: str
    partitions: list[tuple[str, int]]
    at: float = 0.0


class Disowned(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="disowned"):
    """A member learned that partitions are not its own any more (Kafka's `onPartitionsLost`)."""

    consumer: str
    group: str
    partitions: list[tuple[str, int]]
    at: float = 0.0


class CommitSent(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="commit-sent"):
    """A member asks the coordinator to commit; without an answer the outcome is not known."""

    number: int
    consumer: str
    group: str
    member: str
    generation: int
    """-1 from who is no member."""
    offsets: list[tuple[str, int, int]]
    """Topic, partition, and the offset of the next record to read."""
    at: float = 0.0


class CommitAccepted(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="commit-accepted"):
    """The coordinator acknowledged the commit for these partitions."""

    number: int
    partitions: list[tuple[str, int]]
    at: float = 0.0


class CommitRefused(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="commit-refused"):
    """It is certain that nothing was committed for these partitions."""

    number: int
    partitions: list[tuple[str, int]]
    error: str = ""
    """Kafka's name for the reason."""
    at: float = 0.0


class CommittedAsked(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="committed-asked"):
    """Somebody asks how far a group has come in these partitions."""

    number: int
    group: str
    partitions: list[tuple[str, int]]
    at: float = 0.0


class CommittedRead(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="committed-read"):
    """The answer to a :class:`CommittedAsked`."""

    number: int
    offsets: list[tuple[str, int, int]]
    """Topic, partition, offset; -1 where nothing is committed."""
    at: float = 0.0


class Finished(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag="finished"):
    """A group has had all the time it needs: everything below ``offset`` is to have been processed."""

    group: str
    topic: str
    partition: int
    offset: int
    at: float = 0.0


GroupEvent: TypeAlias = (
    Joined
    | Assigned
    | Revoked
    | Disowned
    | CommitSent
    | CommitAccepted
    | CommitRefused
    | CommittedAsked
    | CommittedRead
    | Finished
)
HistoryEvent: TypeAlias = (
    Sent | Acknowledged | Failed | Unknown | Positioned | Polled | Lost | Ended | GroupEvent
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[HistoryEvent] = msgspec.json.Decoder(HistoryEvent)


def partition_of(event: Sent | Positioned | Polled | Lost | Ended) -> TopicPartition:
    """The partition that an event is about."""
    return TopicPartition(event.topic, event.partition)


def to_lines(events: Iterable[HistoryEvent]) -> Iterator[bytes]:
    """The events as lines of a file."""
    for event in events:
        yield _encoder.encode(event) + b"\n"


def from_lines(lines: Iterable[bytes]) -> Iterator[HistoryEvent]:
    """The events of a file. Raises msgspec.DecodeError for a line that is none."""
    for line in lines:
        if line.strip():
            yield _decoder.decode(line)
