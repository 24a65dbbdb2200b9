"""The events of a history, and their form in a file: one JSON object a line.

A *value* is the number of one record, unique in the whole history. Offsets and positions are those of
Kafka: the first record of a partition has offset 0. ``at`` is a time in seconds on one clock for the
whole history; it is for people, the order of the events is what counts.
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


HistoryEvent: TypeAlias = Sent | Acknowledged | Failed | Unknown | Positioned | Polled | Lost | Ended

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
