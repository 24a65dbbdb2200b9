"""Members of a group in a process of the benchmark: join at the word, read and commit until told to stop."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from contextlib import AsyncExitStack

import msgspec

from kafkalite.client.consumer import Consumer
from kafkalite.client.group.listener import RebalanceListener
from kafkalite.common import TopicPartition


class GroupWork(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to do."""

    bootstrap: str
    topic: str
    group: str
    members: int
    max_poll_interval_ms: int


class GroupWorked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    records: int
    """Read by all members of this process; a record that was read twice counts twice."""
    first: float
    """When the read began that brought the first of them, and when the last came; monotonic seconds of this
    machine, 0 for none."""
    last: float
    settled: float
    """When a member was last assigned something."""
    cpu_s: float


class _Members(RebalanceListener):
    """The members of this process together."""

    def __init__(self) -> None:
        self.records = 0
        self.first = self.last = self.settled = 0.0

    def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
        if assigned:
            self.settled = time.monotonic()

    async def read(self, consumer: Consumer, stop: asyncio.Event) -> None:
        while not stop.is_set():
            began = time.monotonic()
            found = await consumer.getcolumns(timeout_ms=200, max_records=50_000)
            if found:
                self.last = time.monotonic()
                self.first = self.first or began
                self.records += sum(map(len, found.values()))


async def work_in_group(task: GroupWork) -> GroupWorked:
    """Do ``task``: the words are `ready` (out), `go` and `stop` (in)."""
    members = _Members()
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        consumers = [
            await stack.enter_async_context(
                Consumer(
                    bootstrap_servers=task.bootstrap,
                    group_id=task.group,
                    client_id=f"bench-{number}",
                    auto_offset_reset="earliest",
                    auto_commit_interval_ms=500,
                    session_timeout_ms=10_000,
                    max_poll_interval_ms=task.max_poll_interval_ms,
                )
            )
            for number in range(task.members)
        ]
        gc.collect()
        gc.freeze()
        print("ready", flush=True)
        await _word()
        cpu = time.process_time()
        for consumer in consumers:
            consumer.subscribe([task.topic], listener=members)
        async with asyncio.TaskGroup() as reading:
            for consumer in consumers:
                reading.create_task(members.read(consumer, stop))
            await _word()
            stop.set()
        cpu = time.process_time() - cpu
    return GroupWorked(
        records=members.records, first=members.first, last=members.last, settled=members.settled, cpu_s=cpu
    )


async def _word() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
