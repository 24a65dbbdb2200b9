"""Numbered records, what was acknowledged of them, and whether the cluster kept its word.

The promise (acks=all, idempotent): every acknowledged record is read back at the offset that it
was acknowledged at, a producer's records stand in the order in which they were sent, and no record
stands at two offsets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kafkalite.client import Consumer, Producer, TopicPartition
from kafkalite.client.errors import ClientError
from kafkalite.protocol.errors import BrokerError


@dataclass
class Workload:
    """One producer that writes numbered records round robin to the partitions of a topic."""

    bootstrap_servers: str
    topic: str
    partitions: int
    acks: int | str = "all"
    window: int = 200
    """Records that may be unacknowledged at a time."""
    padding: bytes = b""
    """Behind the number, to make the records larger."""
    acknowledged: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """(partition, offset) to value."""
    failed: list[tuple[bytes, Exception]] = field(default_factory=list)
    """Records that the producer gave up on: they may be in the log or not."""
    sent: int = 0
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    writer: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[Workload]:
        """Write until the block ends, then wait for every answer."""
        stop = asyncio.Event()
        self.writer = writer = asyncio.create_task(self._write(stop, options))
        writer.add_done_callback(lambda _: self.progress.set())
        try:
            yield self
        finally:
            stop.set()
            await writer

    async def acknowledges(self, count: int, *, within_s: float = 60) -> None:
        """Wait until ``count`` more records have been acknowledged."""
        goal = len(self.acknowledged) + count
        async with asyncio.timeout(within_s):
            while len(self.acknowledged) < goal:
                if self.writer is not None and self.writer.done():
                    self.writer.result()  # Raises what ended it, instead of waiting for what cannot come.
                self.progress.clear()
                await self.progress.wait()

    async def _write(self, stop: asyncio.Event, options: dict[str, Any]) -> None:
        room = asyncio.Semaphore(self.window)
        async with (
            Producer(
                bootstrap_servers=self.bootstrap_servers,
                acks=self.acks,
                enable_idempotence=self.acks in ("all", -1),
                **options,
            ) as producer,
            asyncio.TaskGroup() as answers,
        ):
            while not stop.is_set():
                await room.acquire()
                partition = self.sent % self.partitions
                value = b"%d/%d/%b" % (partition, self.sent, self.padding)
                self.sent += 1
                answer = await producer.send(self.topic, value, partition=partition)
                answers.create_task(self._await_answer(value, answer, room))

    async def _await_answer(self, value: bytes, answer: Any, room: asyncio.Semaphore) -> None:
        try:
            metadata = await answer
        except (ClientError, BrokerError) as error:
            self.failed.append((value, error))
        else:
            place = (metadata.partition, metadata.offset)
            # With acks=1 a record may go with its leader, and its offset to another record.
            assert self.acks not in ("all", -1) or place not in self.acknowledged, f"{place} twice"
            self.acknowledged[place] = value
        finally:
            room.release()
            self.progress.set()


async def read_all(bootstrap_servers: str, topic: str, partitions: int) -> dict[tuple[int, int], bytes]:
    """Read every partition from its start to its present end: (partition, offset) to value."""
    found: dict[tuple[int, int], bytes] = {}
    everything = [TopicPartition(topic, number) for number in range(partitions)]
    async with Consumer(bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest") as consumer:
        consumer.assign(everything)
        await consumer.seek_to_beginning(*everything)
        ends = await consumer.end_offsets(everything)
        for one in everything:
            while await consumer.position(one) < ends[one]:
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    for record in records:
                        place = (record.partition, record.offset)
                        assert place not in found, f"{place} was read twice"
                        assert record.value is not None
                        found[place] = record.value
    return found


async def kept_its_word(workload: Workload, *, may_lose: bool = False) -> None:
    """Read the topic and compare (``may_lose``: acks=1 may lose, but never swap, double or reorder)."""
    found = await read_all(workload.bootstrap_servers, workload.topic, workload.partitions)
    for place, value in workload.acknowledged.items():
        if not (may_lose and place not in found):
            assert found.get(place) == value, (
                f"{place} was acknowledged as {value!r}, holds {found.get(place)!r}"
            )
    for partition in range(workload.partitions):
        values = [found[place] for place in sorted(found) if place[0] == partition]
        offsets = [place[1] for place in sorted(found) if place[0] == partition]
        assert offsets == list(range(len(offsets))), f"partition {partition} has holes"
        numbers = [int(value.split(b"/")[1]) for value in values]
        assert len(set(numbers)) == len(numbers), f"partition {partition} holds a record twice"
        assert numbers == sorted(numbers), f"partition {partition} is out of order"
