"""An event loop with virtual time, and processes on it that can be stopped or killed in mid-flight.

Time stands still while code runs and jumps to the next timer when nothing is ready. Everything runs in
a fixed order: callbacks first in, first out, timers by time and then by the order in which they were
set, tasks hashed by their number (sets of tasks would otherwise be walked in the order of addresses).

A *process* is all that runs under a context in which :data:`PROCESS` names it: its tasks, what they
start, their timers. The loop looks at that before it runs a callback. A paused process's callbacks are
held back, timers that have come due included, until it goes on: what SIGSTOP and SIGCONT do. A dead
process's callbacks are dropped: nothing of it ever runs again, no `finally` block either, which is what
kill -9 does and what cancelling its tasks would not do.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import random
import selectors
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START_MS = 1_700_000_000_000
"""Wall time at the start of every simulation."""


class Deadlock(Exception):
    """Nothing is ready and no timer is set: the simulation would wait for ever."""


class Process:
    """One simulated operating-system process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.is_paused = False
        self._held: list[_Step] = []

    def context(self) -> contextvars.Context:
        """A fresh context of this process, in which nothing else is set."""
        context = contextvars.Context()
        context.run(PROCESS.set, self)
        return context

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run ``work`` as a task of this process."""
        return asyncio.get_running_loop().create_task(work, name=name, context=self.context())

    def hold(self, handle: _Step) -> None:
        """Keep a callback back until the process goes on."""
        self._held.append(handle)

    def pause(self) -> None:
        """Stop the process where it is."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on; everything that came due meanwhile is due now."""
        self.is_paused = False
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.release(self._held)
        self._held = []

    def kill(self) -> None:
        """End the process between two of its steps. Nothing of it runs any more."""
        self.is_alive = False
        self._held = []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.bury()


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class _NumberedTask(asyncio.Task[T]):
    """A task whose hash is the same in every run."""

    def __init__(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        loop: VirtualLoop,
        name: str | None,
        context: contextvars.Context | None,
    ) -> None:
        loop.task_count += 1
        self._number = loop.task_count
        super().__init__(coro, loop=loop, name=name or "task", context=context)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Step(asyncio.TimerHandle):
    """A callback that is ready, or a timer. Worlds make hundreds of thousands, so it is as light as can be:
    whose step it is is found out once, and none of asyncio's debugging aids are kept."""

    __slots__ = ("process", "when_due")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        timer_of: VirtualLoop | None = None,
        when_due: float = 0.0,
    ) -> None:
        # Deliberately without super().__init__(): the base's own slots are filled in here.
        if context is None:
            context = contextvars.copy_context()
        self._context = context
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._loop = timer_of
        self.process = context.get(PROCESS)
        self.when_due = when_due

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback, self._args = _nothing, ()
            if self._loop is not None:  # Still among the timers.
                self._loop.timer_was_cancelled()

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self.when_due


def _nothing() -> None:
    """What a cancelled step would do."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in a fixed order; there are no file descriptors and no threads."""

    _ready: deque[_Step]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self
        self._timers: list[tuple[float, int, _Step]] = []
        self._timer_count = 0
        self._cancelled_count = 0
        self._graveyard: list[asyncio.Task[Any]] = []
        self.task_count = 0
        self.steps = 0
        """Callbacks run so far."""
        self.faults: list[dict[str, Any]] = []
        """What reached the exception handler of :func:`simulate`: each is a defect of somebody."""
        self.after_step: Callable[[Process | None], None] | None = None
        """Called after each step with the process that made it (None: the world outside): the invariants."""

    def time(self) -> float:
        return self._now

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        assert isinstance(coro, Coroutine)
        return _NumberedTask(coro, loop=self, name=str(name) if name else None, context=context)

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        step = _Step(callback, args, context)
        self._ready.append(step)
        return step

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = _Step(callback, args, context, self, when)
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, timer))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def timer_was_cancelled(self) -> None:
        """Cancelled timers are swept out when they are many."""
        self._cancelled_count += 1

    def release(self, handles: list[_Step]) -> None:
        """Queue callbacks that were held back."""
        self._ready.extend(handles)

    def bury(self) -> None:
        """Keep what a dead process leaves unfinished from being collected, which would run its
        `finally` blocks after all."""
        self._graveyard.extend(asyncio.all_tasks(self))

    def _run_once(self) -> None:
        """Turn after turn until the loop is asked to stop."""
        while True:
            self._turn()
            if self._stopping:
                return

    def _turn(self) -> None:
        """Let the time pass if nothing is ready, then run what is ready now."""
        ready, timers = self._ready, self._timers
        if self._cancelled_count > 100 and self._cancelled_count * 2 > len(timers):
            timers[:] = [entry for entry in timers if not entry[2]._cancelled]
            heapq.heapify(timers)
            self._cancelled_count = 0
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
            self._cancelled_count -= 1
        if not ready and not self._stopping:
            if not timers:
                raise Deadlock("no task can go on and no timer is set")
            if timers[0][0] > self._now:
                self._now = timers[0][0]
        now = self._now
        while timers and timers[0][0] <= now:
            step = heapq.heappop(timers)[2]
            if step._cancelled:
                self._cancelled_count -= 1
            else:
                step._loop = None  # No timer any more: its cancellation concerns nobody.
                ready.append(step)
        for _ in range(len(ready)):
            step = ready.popleft()
            if step._cancelled:
                continue
            process = step.process
            if process is not None:
                if not process.is_alive:
                    continue
                if process.is_paused:
                    process.hold(step)
                    continue
            self.steps += 1
            try:
                step._context.run(step._callback, *step._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler(
                    {"message": f"Exception in callback {step._callback}", "exception": error, "handle": step}
                )
            if self.after_step is not None:
                self.after_step(process)

    def _process_events(self, event_list: object) -> None:
        """No descriptors, no events."""

    def select(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Never asked: :meth:`_run_once` lets the time pass itself."""
        raise AssertionError

    def _write_to_self(self) -> None:
        """There is no other thread that would have to wake the loop."""

    def close(self) -> None:
        """Forget everything; what was stopped in mid-flight is unwound where it can do no harm."""
        leftover: dict[int, asyncio.Task[Any]] = {}
        for task in [*asyncio.all_tasks(self), *self._graveyard]:
            leftover[hash(task)] = task
        self._graveyard.clear()
        for _, task in sorted(leftover.items()):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            if not task.done():
                _unwind(task.get_coro())
        self._ready.clear()
        self._timers.clear()
        super().close()


def _unwind(coroutine: Any) -> None:
    for _ in range(100):  # What awaits again while it is closed is closed again.
        try:
            coroutine.close()
            return
        except BaseException:  # Its owners are gone; there is nobody to tell.
            continue


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


class SimulatedOffload:
    """Blocking work takes a moment and then happens at once, in place of a thread."""

    def __init__(self, chance: random.Random, *, max_delay_s: float = 0.002) -> None:
        self._chance = chance
        self.max_delay_s = max_delay_s
        """Raised by a slow disk."""

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(self._chance.uniform(0.0, self.max_delay_s))
        return work(*args, **kwargs)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on a fresh virtual loop to its end, and end what is left of its tasks."""
    loop = VirtualLoop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        leftover = sorted(asyncio.all_tasks(loop), key=hash)
        for task in leftover:
            task.cancel()
        if leftover:
            loop.run_until_complete(asyncio.gather(*leftover, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()


def simulate(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a world on a fresh virtual loop until ``main`` returns; everything else simply stops there."""
    loop = VirtualLoop()
    loop.set_exception_handler(lambda _, context: loop.faults.append(context))
    hook = sys.unraisablehook
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main(loop))
    finally:
        asyncio.set_event_loop(None)
        # Generators that were stopped in mid-flight complain when they are collected.
        sys.unraisablehook = lambda unraisable: None
        loop.close()
        gc.collect()
        sys.unraisablehook = hook
