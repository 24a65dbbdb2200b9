"""Requests that wait: for a high watermark, for bytes, for a change of leader, or for their time.

Nothing here polls. Whoever changes something that a request may wait for flags the requests that
watch it; those are looked at once, on the loop's next turn, however many partitions one request
has moved meanwhile (one produce request over six partitions wakes a follower's fetch once). A
deadline is a timer of the loop. A request whose caller is cancelled (its connection is lost)
leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias


class Delayed:
    """A request that waits. Subclasses say when it is complete."""

    __slots__ = ("future", "is_flagged")

    def __init__(self) -> None:
        self.future: asyncio.Future[bool] | None = None
        self.is_flagged = False

    def is_complete(self) -> bool:
        """Tell whether there is anything to answer with now. Cheap: asked at each flagging."""
        raise NotImplementedError

    def expire(self) -> None:
        """The deadline has passed."""
        if self.future is not None and not self.future.done():
            self.future.set_result(False)


Watchers: TypeAlias = dict[Delayed, None]
"""The requests that watch one partition for one purpose, in order of arrival."""


class Purgatory:
    """Wakes delayed requests. Belongs to the loop that it is first used on."""

    def __init__(self) -> None:
        self._flagged: list[Delayed] = []
        self._waiting = 0

    def __len__(self) -> int:
        """How many requests wait (PurgatorySize)."""
        return self._waiting

    def flag(self, watchers: Watchers) -> None:
        """Have every request in ``watchers`` looked at on the loop's next turn."""
        if not watchers:
            return
        was_empty = not self._flagged
        for delayed in watchers:
            if not delayed.is_flagged:
                delayed.is_flagged = True
                self._flagged.append(delayed)
        if was_empty and self._flagged:
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        flagged, self._flagged = self._flagged, []
        for delayed in flagged:
            delayed.is_flagged = False
            future = delayed.future
            if future is not None and not future.done() and delayed.is_complete():
                future.set_result(True)

    async def wait(self, delayed: Delayed, watched: Sequence[Watchers], *, timeout_s: float) -> bool:
        """Wait until ``delayed`` is complete (True) or its time is up (False).

        The caller has just found it incomplete, in the same step, so that no event falls between.
        """
        loop = asyncio.get_running_loop()
        delayed.future = loop.create_future()
        for watchers in watched:
            watchers[delayed] = None
        timer = loop.call_later(timeout_s, delayed.expire)
        self._waiting += 1
        try:
            return await delayed.future
        finally:
            self._waiting -= 1
            timer.cancel()
            for watchers in watched:
                watchers.pop(delayed, None)
