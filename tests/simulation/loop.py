"""An event loop whose time stands still while code runs and jumps to the next timer when idle."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

START_MS = 1_700_000_000_000
"""Wall time at the start of every simulation."""


class Deadlock(Exception):
    """Nothing is ready and no timer is set: the simulation would wait for ever."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in a fixed order; there are no file descriptors and no threads."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self
        self.slow_callback_duration = float("inf")

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Called when nothing is ready: instead of waiting, let the time pass."""
        if timeout is None:
            raise Deadlock("no task can go on and no timer is set")
        self._now += timeout
        return []

    def _process_events(self, event_list: object) -> None:
        """No descriptors, no events."""

    def _write_to_self(self) -> None:
        """There is no other thread that would have to wake the loop."""


class VirtualClock:
    """The loop's time; ``skew_ms`` moves this node's wall clock only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, skew_ms: int = 0) -> None:
        self._loop = loop
        self.skew_ms = skew_ms

    def wall_ms(self) -> int:
        return START_MS + self.skew_ms + int(self._loop.time() * 1000)

    def monotonic(self) -> float:
        return self._loop.time()


class InlineOffload:
    """Blocking work happens at once, after one turn of the loop, in place of a thread."""

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(0)
        return work(*args, **kwargs)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on a fresh virtual loop to its end, and end what is left of its tasks."""
    loop = VirtualLoop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        leftover = asyncio.all_tasks(loop)
        for task in leftover:
            task.cancel()
        if leftover:
            loop.run_until_complete(asyncio.gather(*leftover, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
