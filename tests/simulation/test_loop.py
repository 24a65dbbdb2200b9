"""What a process on the virtual loop does when it is paused or killed."""

from __future__ import annotations

import asyncio

import pytest

from .loop import Deadlock, Process, VirtualLoop, simulate


def test_a_killed_process_does_nothing_any_more() -> None:
    done: list[str] = []

    async def live() -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(inner())
                await asyncio.sleep(5)
        finally:
            done.append("outer")

    async def inner() -> None:
        try:
            await asyncio.sleep(1)
            done.append("woke up")
            await asyncio.sleep(100)
        finally:
            done.append("inner")

    async def main(loop: VirtualLoop) -> list[str]:
        process = Process("victim")
        process.spawn(live(), "live")
        await asyncio.sleep(2)
        process.kill()
        await asyncio.sleep(1000)
        return list(done)

    assert simulate(main) == ["woke up"]


def test_a_paused_process_finds_its_timers_due() -> None:
    async def live() -> tuple[float, bool]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(3):
                await asyncio.sleep(4)
        except TimeoutError:
            return loop.time(), True
        return loop.time(), False

    async def main(loop: VirtualLoop) -> tuple[float, bool]:
        process = Process("sleeper")
        task = process.spawn(live(), "live")
        await asyncio.sleep(1)
        process.pause()
        await asyncio.sleep(10)
        assert not task.done()
        process.resume()
        return await task

    assert simulate(main) == (11.0, True)


def test_time_passes_only_when_nothing_is_ready() -> None:
    async def main(loop: VirtualLoop) -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        before = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - before

    assert simulate(main) == 3600.0


def test_waiting_for_ever_is_an_error() -> None:
    async def main(loop: VirtualLoop) -> None:
        await loop.create_future()

    with pytest.raises(Deadlock):
        simulate(main)


def test_what_a_task_leaves_unhandled_is_kept() -> None:
    def fail() -> None:
        raise RuntimeError("nobody handles this")

    async def main(loop: VirtualLoop) -> list[str]:
        loop.call_soon(fail)
        await asyncio.sleep(1)
        return [str(fault["exception"]) for fault in loop.faults]

    assert simulate(main) == ["nobody handles this"]
