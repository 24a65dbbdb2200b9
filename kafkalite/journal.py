"""The journal: every change of cluster state is an event that names its cause.

An event has an id (`<broker>-<start ms>-<n>`), a time, a type, facts, and the id of the event
that led to it. Ids are unique across brokers, so a chain of causes crosses from one broker's
journal into another's; requests carry it as `X-Cause-Id`. The journal is a bounded ring: what
falls out of it is still in `state-change.log`, written by whoever subscribes.

The ambient cause (:meth:`Journal.because`) follows the flow of control through awaits and into
tasks, so that code in the middle need not hand it on.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NewType

import msgspec

from kafkalite.common import BrokerId, TopicPartition
from kafkalite.edge import Clock

EventId = NewType("EventId", str)

_ambient_cause: contextvars.ContextVar[EventId | None] = contextvars.ContextVar(
    "kafkalite_cause", default=None
)


class Event(msgspec.Struct, frozen=True):
    """One change of state. Facts are JSON values."""

    id: EventId
    time: int
    """Milliseconds since the Unix epoch."""
    broker: BrokerId
    type: str
    """A fact in the past tense: `BrokerFailed`, `LeaderElected`, `IsrShrunk`."""
    cause: EventId | None
    topic: str | None = None
    partition: int | None = None
    facts: dict[str, Any] = msgspec.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The event as CONTRACTS section 4 has it; topic and partition only where they are set."""
        body: dict[str, Any] = {
            "id": self.id,
            "time": self.time,
            "broker": self.broker,
            "type": self.type,
            "cause": self.cause,
        }
        if self.topic is not None:
            body["topic"] = self.topic
        if self.partition is not None:
            body["partition"] = self.partition
        body["facts"] = self.facts
        return body


class Journal:
    """One broker's ring of events. Not thread-safe: it belongs to the loop."""

    CAPACITY: Final = 10_000

    def __init__(self, broker_id: BrokerId, clock: Clock, *, capacity: int = CAPACITY) -> None:
        self._broker_id = broker_id
        self._clock = clock
        self._prefix = f"{broker_id}-{clock.wall_ms()}-"
        self._events: deque[Event] = deque(maxlen=capacity)
        self._count = 0
        self._subscribers: list[Callable[[Event], None]] = []

    def record(
        self,
        type: str,
        *,
        cause: EventId | None = None,
        partition: TopicPartition | None = None,
        topic: str | None = None,
        **facts: Any,
    ) -> EventId:
        """Append an event and return its id, to be named as the cause of what follows.

        Without ``cause`` the ambient one is taken.
        """
        event = Event(
            id=EventId(f"{self._prefix}{self._count}"),
            time=self._clock.wall_ms(),
            broker=self._broker_id,
            type=type,
            cause=cause if cause is not None else _ambient_cause.get(),
            topic=partition.topic if partition is not None else topic,
            partition=partition.partition if partition is not None else None,
            facts=facts,
        )
        self._count += 1
        self._events.append(event)
        for subscriber in self._subscribers:
            subscriber(event)
        return event.id

    @staticmethod
    @contextlib.contextmanager
    def because(cause: EventId | None) -> Iterator[None]:
        """Make ``cause`` the ambient cause inside the block and in tasks started there."""
        token = _ambient_cause.set(cause)
        try:
            yield
        finally:
            _ambient_cause.reset(token)

    @staticmethod
    def ambient_cause() -> EventId | None:
        """The cause that :meth:`record` would take by default; sent along as `X-Cause-Id`."""
        return _ambient_cause.get()

    def subscribe(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``subscriber`` with each new event, on the loop; returns what ends it."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def events(
        self, *, after: EventId | None = None, type: str | None = None, limit: int = 1000
    ) -> list[Event]:
        """Return at most ``limit`` events later than ``after``, oldest first.

        An ``after`` that this ring no longer (or never) held means from the oldest one on.
        """
        first = 0
        if after is not None and after.startswith(self._prefix):
            number = int(after[len(self._prefix) :])
            first = max(0, number + 1 - (self._count - len(self._events)))
        found = []
        for index in range(first, len(self._events)):
            event = self._events[index]
            if type is None or event.type == type:
                found.append(event)
                if len(found) == limit:
                    break
        return found
