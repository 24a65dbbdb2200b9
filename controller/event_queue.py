"""The one queue of the controller, and the only order in which its state changes.

It has no bound of its own: each one-shot watch adds at most one event until it is read again, each
broker at most one answer, each API call holds a place in the server's limit of requests. So its
length is bounded by what is watched and by who is connected.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

E = TypeVar("E")


class EventQueue(Generic[E]):
    """First in, first out, for one consumer on the loop."""

    def __init__(self, preempt: Callable[[E], None]) -> None:
        """``preempt`` is called with each event that :meth:`clear_and_put` throws away."""
        self._events: deque[E] = deque()
        self._arrived = asyncio.Event()
        self._preempt = preempt

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: E) -> None:
        """Add at the end; an equal event that waits already makes a second one pointless."""
        if event not in self._events:
            self._events.append(event)
        self._arrived.set()

    def clear_and_put(self, event: E) -> None:
        """Throw away all that waits, telling whoever waits on it, and let ``event`` be next."""
        self.clear()
        self._events.append(event)
        self._arrived.set()

    def clear(self) -> None:
        """Throw away all that waits, telling whoever waits on it."""
        preempted, self._events = self._events, deque()
        for old in preempted:
            self._preempt(old)

    async def get(self) -> E:
        """Wait for the oldest event and take it."""
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()
