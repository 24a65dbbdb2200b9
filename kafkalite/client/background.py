"""The tasks that a client runs beside its caller, owned by one object and awaited when it stops.

Client objects live from ``start()`` to ``stop()``, not inside one block, so the TaskGroup lives in a
task of its own. A fault in a background task is a defect: it ends all of them and is told to the
owner at once, which makes every later call raise it instead of waiting for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """A TaskGroup between :meth:`start` and :meth:`stop`."""

    def __init__(self, name: str, on_fault: Callable[[BaseException], None]) -> None:
        self._name = name
        self._on_fault = on_fault
        self._group: asyncio.TaskGroup | None = None
        self._main: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Begin to take tasks; after a :meth:`stop` (a start that failed, say) once more."""
        self._stopping.clear()
        ready = asyncio.get_running_loop().create_future()
        self._main = asyncio.get_running_loop().create_task(self._run(ready), name=self._name)
        await ready

    async def _run(self, ready: asyncio.Future[None]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                ready.set_result(None)
                await self._stopping.wait()
                raise _Stop
        except* _Stop:
            pass
        except* Exception as faults:
            self._on_fault(_first(faults))
        finally:
            self._group = None

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` until it ends or the client stops; started in the order of the calls."""
        if self._group is None:
            work.close()
            raise RuntimeError(f"{self._name} is not running")
        return self._group.create_task(work, name=f"{self._name} {name}")

    @property
    def is_running(self) -> bool:
        """Whether tasks are taken."""
        return self._group is not None

    async def stop(self) -> None:
        """Cancel what runs, and return when it has ended."""
        if self._main is not None:
            self._stopping.set()
            await asyncio.wait([self._main])
            self._main = None


class _Stop(Exception):
    """Ends the group from inside, which cancels its tasks."""


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first fault of a group, which is the one that led to the others."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
