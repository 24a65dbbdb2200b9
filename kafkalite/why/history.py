"""The journals of all brokers as one history.

An event may come twice (from a broker's ring and from its `state-change.log`): its id says so.
Order is by time and, within one life of one broker, by the number in the id. Clocks of different
machines differ, so what follows from what is told by causes and epochs, never by times across
brokers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from kafkalite.common import BrokerId, TopicPartition
from kafkalite.journal import Event, EventId


class Receipt(msgspec.Struct, frozen=True):
    """A stretch of records that a broker threw away: one line of its `loss-receipts.jsonl`."""

    broker: BrokerId
    """Whose log they were thrown out of."""
    time: int
    topic: str
    partition: int
    leader_epoch: int
    """The epoch that they were written in."""
    first_offset: int
    last_offset: int
    """Inclusive."""
    reason: str
    cause: EventId | None


def read_event(body: Mapping[str, Any]) -> Event:
    """An event from its JSON (CONTRACTS section 4). Raises KeyError, TypeError where it is none."""
    return Event(
        id=EventId(body["id"]),
        time=int(body["time"]),
        broker=BrokerId(body["broker"]),
        type=body["type"],
        cause=None if body["cause"] is None else EventId(body["cause"]),
        topic=body.get("topic"),
        partition=body.get("partition"),
        facts=dict(body["facts"]),
    )


def read_receipt(broker: int, body: Mapping[str, Any]) -> Receipt:
    """A receipt of ``broker`` from its JSON line. Raises KeyError, TypeError where it is none."""
    return Receipt(
        broker=BrokerId(broker),
        time=int(body["time"]),
        topic=body["topic"],
        partition=int(body["partition"]),
        leader_epoch=int(body["leader_epoch"]),
        first_offset=int(body["first_offset"]),
        last_offset=int(body["last_offset"]),
        reason=body["reason"],
        cause=None if body["cause"] is None else EventId(body["cause"]),
    )


class History:
    """All events that could be read, each once, in order, with their causes."""

    def __init__(self, events: Iterable[Event], receipts: Iterable[Receipt] = ()) -> None:
        self._by_id = {event.id: event for event in events}
        self.events = sorted(self._by_id.values(), key=_order)
        self.receipts = sorted(set(receipts), key=lambda one: (one.time, one.broker, one.first_offset))

    def find(self, id: EventId | None) -> Event | None:
        """The event with that id, if it was read."""
        return None if id is None else self._by_id.get(id)

    def causes(self, event: Event) -> list[Event]:
        """``event`` and what led to it, step by step, as far as it is known: the root comes last."""
        chain = [event]
        seen = {event.id}
        while (cause := self.find(chain[-1].cause)) is not None and cause.id not in seen:
            seen.add(cause.id)
            chain.append(cause)
        return chain

    def of(self, partition: TopicPartition) -> list[Event]:
        """The partition's own events since its topic was last created."""
        since = [
            index
            for index, event in enumerate(self.events)
            if event.type == "TopicCreated" and event.topic == partition.topic
        ]
        return [
            event
            for event in self.events[since[-1] if since else 0 :]
            if event.topic == partition.topic and event.partition == partition.partition
        ]

    def replicas(self, partition: TopicPartition) -> tuple[BrokerId, ...]:
        """The assigned replicas in preference order; empty where no event names them."""
        found: list[int] = []
        for event in self.events:
            if event.topic != partition.topic:
                continue
            if event.type in ("TopicCreated", "PartitionsAdded"):
                found = event.facts["assignment"].get(str(partition.partition), found)
            elif event.type == "NoLeaderElected" and event.partition == partition.partition:
                found = event.facts["replicas"]
        return tuple(BrokerId(broker) for broker in found)

    def of_broker(self, broker: BrokerId) -> list[Event]:
        """What the broker wrote into its own journal."""
        return [event for event in self.events if event.broker == broker]


def _order(event: Event) -> tuple[int, str, int]:
    life, _, number = event.id.rpartition("-")
    return event.time, life, int(number)
