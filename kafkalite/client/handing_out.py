"""Handing out: what the caller gets of what was fetched, and what of that counts as processed.

One batch at a time is opened, and records are handed out from it until it is used up; then it is another
partition's turn. In a group, what was handed out counts as *processed* once the caller asks for more, or
stops: no automatic commit goes further, and no partition is given up before. A member that may have been
replaced without knowing it hands out nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from kafkalite.client.assignment import Assignment
from kafkalite.client.errors import ClientTimeoutError
from kafkalite.client.fetcher import Fetcher
from kafkalite.client.group.membership import Membership
from kafkalite.client.records import ConsumerRecord, OffsetAndMetadata, RecordColumns
from kafkalite.client.subscription import Deserializer, PartitionState
from kafkalite.common import TopicPartition
from kafkalite.edge import Clock
from kafkalite.protocol.errors import FencedInstanceIdError

PartT = TypeVar("PartT", list[ConsumerRecord], RecordColumns)


class HandingOut:
    """The reading side of a consumer."""

    def __init__(
        self,
        assignment: Assignment,
        fetcher: Fetcher,
        group: Membership | None,
        clock: Clock,
        *,
        key_deserializer: Deserializer | None,
        value_deserializer: Deserializer | None,
        check_crcs: bool,
        check_open: Callable[[], None],
    ) -> None:
        """``check_open`` raises ClientClosedError when the consumer is not open."""
        self._assignment = assignment
        self._fetcher = fetcher
        self._group = group
        self._clock = clock
        self._key_deserializer = key_deserializer
        self._value_deserializer = value_deserializer
        self._check_crcs = check_crcs
        self._check_open = check_open
        self._current: PartitionState | None = None
        """The partition whose open batch the last single record came from."""
        self._owes_a_turn = False
        """A batch was used up: the next read lets the fetchers have a turn of the loop first. Not the same
        one: if that were cancelled meanwhile, what it had taken would be lost."""
        self._handed_out: list[PartitionState] = []
        """Of which partitions the caller got something that it may not have processed yet."""
        self._came_back = asyncio.Event()
        self._is_reading = False
        self.last_read = 0.0
        """When the caller last came for records, or went away with some."""
        self._errors: list[Exception] = []
        """What happened beside the caller and is to be raised by its next reads."""

    def interrupt(self) -> None:
        """What is assigned, or may be read at all, changes: no short cut to the batch before."""
        self._current = None

    def keep_assigned(self) -> None:
        """Forget what was handed out of partitions that are not assigned any more."""
        states = self._assignment.states
        self._handed_out = [state for state in self._handed_out if states.get(state.tp) is state]

    def at_hand(self) -> ConsumerRecord | None:
        """The next record of the batch that the last single one came from; None where `one` must look."""
        state = self._current
        if (
            state is None
            or state.index >= state.count
            or state.is_paused
            or (self._group is not None and not self._is_group_fine(state))
        ):
            return None
        record = state.take_one()
        if state.index >= state.count:
            self._used_up(state)
        return record

    async def one(self, partitions: tuple[TopicPartition, ...]) -> ConsumerRecord:
        """Wait for the next record of ``partitions`` (all assigned by default), as `Consumer.getone` does."""
        if not partitions and (at_hand := self.at_hand()) is not None:
            return at_hand
        self._check_read()
        self._begin_read()
        try:
            if self._owes_a_turn:
                self._owes_a_turn = False
                await asyncio.sleep(0)
                self._check_read()
            while True:
                for state in self._assignment.chosen(partitions):
                    if self._open(state):
                        self._current = state if not partitions else None
                        self._hand_out(state)
                        record = state.take_one()
                        if not state.left():
                            self._used_up(state)
                        return record
                self._assignment.arrived.clear()
                await self._assignment.arrived.wait()
                self._check_read()
        finally:
            self._end_read()

    def _is_group_fine(self, state: PartitionState) -> bool:
        """The group's part of the short cut: the record before is processed, this one is the caller's."""
        assert self._group is not None
        now = self._clock.monotonic()
        if self._errors or (now >= self._group.lease_until and not self._assignment.is_by_hand):
            return False
        self.last_read = now
        state.held = state.position
        return True

    async def many(
        self,
        partitions: tuple[TopicPartition, ...],
        timeout_ms: float,
        limit: int,
        take: Callable[[PartitionState, int], PartT],
    ) -> dict[TopicPartition, list[PartT]]:
        """What is there, up to ``limit`` records, or comes within ``timeout_ms``: parts of one batch each."""
        self._check_read()
        self._begin_read()
        try:
            if self._owes_a_turn:
                self._owes_a_turn = False
                await asyncio.sleep(0)
                self._check_read()
            found = self._take(partitions, limit, take)
            if found or timeout_ms <= 0:
                self._owes_a_turn |= not found  # Whoever polls without waiting must let the fetchers work.
                return found
            async with asyncio.timeout(timeout_ms / 1000):
                while not found:
                    self._assignment.arrived.clear()
                    await self._assignment.arrived.wait()
                    self._check_read()
                    found = self._take(partitions, limit, take)
        except TimeoutError as timeout:
            if isinstance(timeout, ClientTimeoutError):
                raise
        finally:
            self._end_read()
        return found

    def _take(
        self,
        partitions: tuple[TopicPartition, ...],
        limit: int,
        take: Callable[[PartitionState, int], PartT],
    ) -> dict[TopicPartition, list[PartT]]:
        """What is there, in parts of one batch each."""
        found: dict[TopicPartition, list[PartT]] = {}
        for state in self._assignment.chosen(partitions):
            if not state.has_data:
                continue
            taken: list[PartT] = []
            while limit > 0:
                try:
                    if not self._open(state):
                        break
                except Exception as error:
                    if not found and not taken:
                        raise
                    state.error = error  # What was read before it comes first.
                    limit = 0
                    break
                self._hand_out(state)
                part = take(state, limit)
                limit -= len(part)
                taken.append(part)
                if not state.left():
                    self._used_up(state)
            if taken:
                found[state.tp] = taken
            if limit == 0:
                break
        return found

    def _open(self, state: PartitionState) -> bool:
        """Whether ``state`` has records open now."""
        if self._group is not None and not self._assignment.is_by_hand and not self._group.is_lease_valid:
            return False  # Others may own it by now: the coordinator has to be heard first.
        if state.left():
            return not state.is_paused and not state.is_withheld
        if not state.has_data:
            return False
        try:
            return state.open_next(
                self._key_deserializer, self._value_deserializer, check_crcs=self._check_crcs
            )
        finally:
            self._fetcher.wake(state.tp)
            if state.position is None:
                self._assignment.unsettled.set()

    def _used_up(self, state: PartitionState) -> None:
        """A batch was handed out whole: the next turn is another partition's."""
        self._current = None
        self._assignment.to_the_end(state)
        self._owes_a_turn = True
        self._fetcher.wake(state.tp)

    def _check_read(self) -> None:
        self._check_open()
        if self._errors:
            error = self._errors[0]
            if not isinstance(error, FencedInstanceIdError):  # That one is for good.
                del self._errors[0]
            raise error

    def processed_all(self) -> None:
        """The caller is back: what it got before is processed."""
        for state in self._handed_out:
            state.held = None
        self._handed_out.clear()
        self._came_back.set()

    def _begin_read(self) -> None:
        if self._group is not None:
            self.processed_all()
            self._is_reading = True
            self._group.reading()

    def _end_read(self) -> None:
        self._is_reading = False
        self.last_read = self._clock.monotonic()

    def _hand_out(self, state: PartitionState) -> None:
        """What is taken of ``state`` next goes to the caller."""
        if self._group is not None and state.held is None:
            state.held = state.position
            self._handed_out.append(state)

    def withhold(self, partitions: Sequence[TopicPartition]) -> None:
        """Hand out nothing more of ``partitions``, which are being revoked."""
        self._current = None
        for tp in partitions:
            if tp in self._assignment.states:
                self._assignment.states[tp].is_withheld = True

    async def until_processed(self, partitions: Sequence[TopicPartition]) -> None:
        """Wait until the caller is done with what it got of ``partitions``."""
        while any(state.tp in partitions and state.held is not None for state in self._handed_out):
            self._came_back.clear()
            await self._came_back.wait()

    def processed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """How far the caller has come in ``partitions``, where that is known."""
        found = {}
        for tp in partitions:
            state = self._assignment.states.get(tp)
            if state is not None and state.held is not None:
                found[tp] = OffsetAndMetadata(state.held)
            elif state is not None and state.position is not None:
                found[tp] = OffsetAndMetadata(state.position, "", state.last_epoch)
        return found

    def raise_at_next_read(self, error: Exception) -> None:
        """Tell the caller of ``error``."""
        self._errors.append(error)
        del self._errors[:-10]  # Who never reads need not hear more than the last.
        self._assignment.arrived.set()

    def time_without_read(self) -> float:
        """For how many seconds the caller has not been reading."""
        return 0.0 if self._is_reading else self._clock.monotonic() - self.last_read
