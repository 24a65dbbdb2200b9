"""Writes partitions' states: decide from what is known, write if it still holds, else look again.

Every write is one multi that checks three versions: that of `/controller_epoch` (am I still the
controller?), that of `/brokers/ids` (did anybody begin a new life since I looked?) and that of the
state itself (did the leader change the ISR?). What fails is decided again from what is found then,
never forced. A state found written by a later controller ends the reign.

Many partitions are written at a time, within a bound, so that a broker with a thousand of them
fails over in the time of a few dozen round trips.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

from controller.context import ControllerContext, Leadership, Registrations
from kafkalite.common import LeaderAndIsr, PartitionEpoch, TopicPartition
from kafkalite.journal import Journal
from zk.client import BadVersion, NodeExists, NoNode, Stat
from zk.codecs import BadRecord
from zk.store import ControllerMoved, FencedStore, RegistrationsChanged

T = TypeVar("T")

IN_FLIGHT: Final = 64
"""Writes under way at a time."""

Decide = Callable[[TopicPartition, Leadership], LeaderAndIsr | None]
"""The state to write in place of the one given, or None to leave it."""


class Conflict(enum.Enum):
    """Why a write did not happen."""

    STATE = "the state is another by now"
    GONE = "the state, or its topic, is gone"
    REGISTRATIONS = "a broker registered meanwhile"


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at once; wait for every one of them, and only then raise the first error, if any.

    (A bare gather would leave the others running behind the back of whoever handles the error.)
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast(list[T], results)


class LeadershipWriter:
    """Keeps the context's leadership and registrations in step with ZooKeeper."""

    def __init__(self, context: ControllerContext, store: FencedStore, journal: Journal) -> None:
        self._context = context
        self._store = store
        self._journal = journal

    async def update(
        self,
        partitions: Iterable[TopicPartition],
        decide: Decide,
        *,
        prepare: Callable[[Sequence[TopicPartition]], Awaitable[None]] | None = None,
    ) -> dict[TopicPartition, tuple[Leadership, Leadership]]:
        """Carry out ``decide`` for each partition that has a state; return (before, after) of those written.

        ``prepare`` is awaited with the partitions before each round of deciding. Raises
        ControllerMoved, SessionExpired.
        """
        written: dict[TopicPartition, tuple[Leadership, Leadership]] = {}
        pending = [partition for partition in partitions if partition in self._context.leadership]
        while pending:
            if prepare is not None:
                await prepare(pending)
            decisions = [
                (partition, before, state)
                for partition in pending
                if (before := self._context.leadership.get(partition)) is not None
                and (state := decide(partition, before)) is not None
            ]
            again: list[TopicPartition] = []
            for start in range(0, len(decisions), IN_FLIGHT):
                chunk = decisions[start : start + IN_FLIGHT]
                results = await all_of(
                    self._write(partition, before, state) for partition, before, state in chunk
                )
                registrations_changed = False
                for (partition, before, state), result in zip(chunk, results, strict=True):
                    if isinstance(result, Stat):
                        written[partition] = (before, self._adopt(partition, state, result))
                    else:
                        again.append(partition)
                        registrations_changed |= result is Conflict.REGISTRATIONS
                if registrations_changed:
                    # All the others would fail the same check.
                    again += [partition for partition, _, _ in decisions[start + IN_FLIGHT :]]
                    await self.read_registrations()
                    break
            await self.read_states(again)
            pending = again
        return written

    async def create(
        self,
        partitions: Iterable[TopicPartition],
        decide: Callable[[TopicPartition], LeaderAndIsr | None],
    ) -> tuple[list[TopicPartition], list[TopicPartition]]:
        """Write first states: return the partitions written and those found to have one already.

        A partition whose topic vanished is in neither list.
        """
        created: list[TopicPartition] = []
        found: list[TopicPartition] = []
        pending = list(partitions)
        while pending:
            decisions = [(p, state) for p in pending if (state := decide(p)) is not None]
            pending = []
            for start in range(0, len(decisions), IN_FLIGHT):
                chunk = decisions[start : start + IN_FLIGHT]
                results = await all_of(self._create(p, state) for p, state in chunk)
                for (partition, state), result in zip(chunk, results, strict=True):
                    if isinstance(result, Stat):
                        self._adopt(partition, state, result)
                        created.append(partition)
                    elif result is Conflict.REGISTRATIONS:
                        pending.append(partition)
                    elif result is Conflict.STATE:
                        found.append(partition)
                if pending:
                    pending += [partition for partition, _ in decisions[start + IN_FLIGHT :]]
                    await self.read_registrations()
                    break
        await self.read_states(found)
        return created, [partition for partition in found if partition in self._context.leadership]

    async def read_registrations(self) -> None:
        """Read the version of `/brokers/ids`, then who is registered since when."""
        found = await self._store.registrations()
        self._context.registrations = Registrations(found.version, dict(found.czxid))

    async def read_states(self, partitions: Sequence[TopicPartition]) -> None:
        """Read the states anew; a partition without one, or with one that is no record, has no leadership."""
        for start in range(0, len(partitions), IN_FLIGHT):
            chunk = partitions[start : start + IN_FLIGHT]
            found = await all_of(self._read(partition) for partition in chunk)
            for partition, leadership in zip(chunk, found, strict=True):
                if leadership is None:
                    self._context.leadership.pop(partition, None)
                    continue
                if leadership.state.controller_epoch > self._context.epoch:
                    raise ControllerMoved(
                        f"the state of {partition} was written under controller epoch "
                        f"{leadership.state.controller_epoch}; mine is {self._context.epoch}"
                    )
                self._context.leadership[partition] = leadership

    async def _read(self, partition: TopicPartition) -> Leadership | None:
        try:
            found = await self._store.partition_state(partition)
        except BadRecord as bad:
            self._journal.record("PartitionStateUnreadable", partition=partition, reason=str(bad))
            return None
        return None if found is None else Leadership(found[0], found[1].mzxid)

    async def _write(
        self, partition: TopicPartition, before: Leadership, state: LeaderAndIsr
    ) -> Stat | Conflict:
        try:
            return await self._store.write_partition_state(
                partition,
                state,
                expected_version=before.state.partition_epoch,
                registrations_version=self._context.registrations.version,
            )
        except BadVersion:
            return Conflict.STATE
        except NoNode:
            return Conflict.GONE
        except RegistrationsChanged:
            return Conflict.REGISTRATIONS

    async def _create(self, partition: TopicPartition, state: LeaderAndIsr) -> Stat | Conflict:
        try:
            return await self._store.create_partition_state(
                partition, state, registrations_version=self._context.registrations.version
            )
        except NodeExists:
            return Conflict.STATE
        except NoNode:
            return Conflict.GONE
        except RegistrationsChanged:
            return Conflict.REGISTRATIONS

    def _adopt(self, partition: TopicPartition, state: LeaderAndIsr, stat: Stat) -> Leadership:
        leadership = Leadership(replace(state, partition_epoch=PartitionEpoch(stat.version)), stat.mzxid)
        self._context.leadership[partition] = leadership
        return leadership
