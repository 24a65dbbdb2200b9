"""A member of a group as a process of its own, which writes down what it does and when.

Each line is a letter, the machine's monotonic time in nanoseconds (one clock for all processes), and facts:

- `P t topic partition first last`: these records were handed out, and are processed
- `C t topic partition offset`: this offset was committed, and that was acknowledged
- `A`, `R`, `L t topic-partition,…`: assigned, revoked, lost

Run with one argument, :class:`Orders` in JSON. SIGINT has it leave the group and end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kafkalite.client import Consumer, RebalanceListener, TopicPartition
from kafkalite.client.assignors import COOPERATIVE_STICKY, Assigned, Racks
from kafkalite.client.errors import CommitFailedError
from kafkalite.protocol.consumer_protocol import Subscription
from kafkalite.protocol.errors import BrokerError


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is to do."""

    topics: list[str]
    options: dict[str, Any]
    """Of its consumer."""
    commits: bool = True
    """By hand, after every batch. Where False the consumer does it, and no `C` is written."""
    most: int = 20
    """Records a batch."""
    hold: str | None = None
    """While this file exists the member, if it leads, does not come to an end with dividing partitions."""


class _Held:
    """Cooperative-sticky by a leader that is slow as long as a file exists."""

    name = COOPERATIVE_STICKY.name
    rebalance_protocol = COOPERATIVE_STICKY.rebalance_protocol

    def __init__(self, hold: str) -> None:
        self._hold = hold

    def user_data(self, owned: Sequence[TopicPartition], generation: int) -> bytes | None:
        return COOPERATIVE_STICKY.user_data(owned, generation)

    def assign(
        self,
        partitions: Mapping[str, int],
        subscriptions: Mapping[str, Subscription],
        instances: Mapping[str, str],
        racks: Racks,
    ) -> Assigned:
        while os.path.exists(self._hold):
            time.sleep(0.02)
        return COOPERATIVE_STICKY.assign(partitions, subscriptions, instances, racks)


def _say(letter: str, *facts: object) -> None:
    # One write a line: a process that is killed leaves no half of one behind what others read.
    os.write(1, " ".join((letter, str(time.monotonic_ns()), *map(str, facts))).encode() + b"\n")


class _Listener(RebalanceListener):
    def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
        _say("A", ",".join(map(str, sorted(assigned))))

    def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        _say("R", ",".join(map(str, sorted(revoked))))

    def on_partitions_lost(self, lost: frozenset[TopicPartition]) -> None:
        _say("L", ",".join(map(str, sorted(lost))))


async def main(orders: Orders) -> None:
    """Read until a signal comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    options = dict(orders.options)
    if orders.hold is not None:
        options["partition_assignment_strategy"] = [_Held(orders.hold)]
    consumer = Consumer(enable_auto_commit=not orders.commits, **options)
    consumer.subscribe(orders.topics, listener=_Listener())
    async with consumer:
        while not stop.is_set():
            found = await consumer.getmany(timeout_ms=200, max_records=orders.most)
            for tp, records in found.items():
                _say("P", tp.topic, tp.partition, records[0].offset, records[-1].offset)
            if found and orders.commits:
                offsets = {tp: records[-1].offset + 1 for tp, records in found.items()}
                try:
                    await consumer.commit(offsets)
                except (CommitFailedError, BrokerError, TimeoutError):
                    continue  # It may have been committed or not; the next owner goes by what was.
                for tp, offset in offsets.items():
                    _say("C", tp.topic, tp.partition, offset)
            await asyncio.sleep(0.002)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Orders)))
