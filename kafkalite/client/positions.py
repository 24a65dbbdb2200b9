"""Finding positions: where reading begins, and whether a log was truncated behind the reader.

A partition without a position is looked up: what the group has committed, else what `auto_offset_reset`
says. After a change of leader the new one is asked where the epoch of the last record read ended, which
uncovers a log that was truncated behind the reader (KIP-320). One task does all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kafkalite.client.assignment import Assignment
from kafkalite.client.cluster import Cluster, backoff_ms
from kafkalite.client.errors import LogTruncationError, NoOffsetForPartitionError
from kafkalite.client.fetcher import Fetcher
from kafkalite.client.group.coordinator import TRY_AGAIN, Coordinator
from kafkalite.client.metadata import Node
from kafkalite.client.offsets import ask_leader, by_leader
from kafkalite.client.records import OffsetAndMetadata
from kafkalite.client.subscription import PartitionState
from kafkalite.common import TopicPartition
from kafkalite.edge import ConnectionFailed
from kafkalite.protocol.errors import BrokerError, ErrorCode, error_for
from kafkalite.protocol.offset_for_leader_epoch import (
    OffsetForLeaderEpochPartition,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderEpochResponsePartition,
    OffsetForLeaderEpochTopic,
)
from kafkalite.transport import rpc


class Positions:
    """Gives the assigned partitions their positions, and takes care that they stay right."""

    def __init__(
        self,
        cluster: Cluster,
        assignment: Assignment,
        fetcher: Fetcher,
        *,
        coordinator: Coordinator | None,
        reset_to: int | None,
        isolation_level: int,
        request_timeout_ms: int,
        sync: Callable[[], None],
    ) -> None:
        """``reset_to``: LATEST, EARLIEST or None (an error) where there is nothing committed.

        ``coordinator`` is the group's, None without one; ``sync`` is called when there is more to fetch.
        """
        self._cluster = cluster
        self._assignment = assignment
        self._fetcher = fetcher
        self._coordinator = coordinator
        self._reset = reset_to
        self._isolation = isolation_level
        self._request_timeout_ms = request_timeout_ms
        self._sync = sync

    def reset_or_fail(self, state: PartitionState) -> None:
        """Apply `auto_offset_reset`."""
        if self._reset is not None:
            state.reset(self._reset)
        else:
            state.lose()
            state.error = NoOffsetForPartitionError([state.tp])

    def go_to_committed(self, state: PartitionState, found: OffsetAndMetadata | None) -> None:
        """Go on where the group is; without that, `auto_offset_reset` says where."""
        if found is None:
            self.reset_or_fail(state)
            return
        info = self._cluster.metadata.partition(state.tp)
        state.seek(found.offset, found.leader_epoch)
        state.leader_epoch = info.leader_epoch if info is not None else -1
        state.must_validate = 0 <= found.leader_epoch < state.leader_epoch

    def leaders_changed(self) -> None:
        """Have positions checked by leaders that are new, and fetch from them."""
        for state in self._assignment.states.values():
            info = self._cluster.metadata.partition(state.tp)
            if info is None:
                continue
            if state.leader_epoch < info.leader_epoch:
                if state.position is not None and state.position_epoch >= 0:
                    # Records after the position may come from the old leader: they are asked for again.
                    state.refetch()
                    state.must_validate = True
                else:
                    state.fetching = None
                    state.leader_epoch = info.leader_epoch

    async def run(self) -> None:
        """See to it that partitions can be read: leaders, positions, and their check; for ever."""
        failures = 0
        while True:
            self._assignment.unsettled.clear()
            resets = {
                tp: state.reset_to
                for tp, state in self._assignment.states.items()
                if state.position is None and state.reset_to is not None and state.error is None
            }
            in_group = [state for state in self._assignment.states.values() if state.wants_committed]
            checks = [state for state in self._assignment.states.values() if state.must_validate]
            is_one_missing = any(
                self._cluster.metadata.leader_of(tp) is None for tp in self._assignment.states
            ) or any(topic not in self._cluster.metadata.topics for topic in self._assignment.topics)
            if not resets and not checks and not in_group and not is_one_missing:
                failures = 0
                await self._assignment.unsettled.wait()
                continue
            is_done = not is_one_missing
            if in_group:
                is_done &= await self._look_up_committed(in_group)
            if resets:
                is_done &= await self._look_up(resets)
            if checks:
                is_done &= await self._validate(checks)
            if not is_done:
                failures += 1
                self._cluster.request_refresh()
                wait = backoff_ms(
                    failures,
                    self._cluster.retry_backoff_ms,
                    self._cluster.retry_backoff_max_ms,
                    self._cluster.chance,
                )
                await self._pause(wait)

    async def _pause(self, wait_ms: float) -> None:
        """Wait, but not on when something changes (a leader is found, most likely)."""
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await self._assignment.unsettled.wait()
        except TimeoutError:
            pass  # That is what the time is for.

    async def _look_up_committed(self, states: list[PartitionState]) -> bool:
        """Ask where the group is; tell whether there was an answer."""
        assert self._coordinator is not None
        try:
            found = await self._coordinator.committed([state.tp for state in states])
        except BrokerError as error:
            if error.retriable or error.code in TRY_AGAIN:
                return False
            for state in states:
                if state.wants_committed:
                    state.wants_committed = False
                    state.error = error
            self._assignment.arrived.set()
            return True
        for state in states:
            if state.wants_committed and self._assignment.states.get(state.tp) is state:
                self.go_to_committed(state, found.get(state.tp))
        self._assignment.unsettled.set()  # Those without an offset are looked up now.
        self._sync()
        return True

    async def _look_up(self, resets: dict[TopicPartition, int]) -> bool:
        """Ask for log start and end offsets; tell whether all were found."""
        states = {tp: self._assignment.states[tp] for tp in resets}
        try:
            groups, _ = by_leader(self._cluster, resets)
        except BrokerError as error:
            for state in states.values():
                if self._cluster.metadata.topic_errors.get(state.tp.topic) == error.code:
                    state.error = error
            self._assignment.arrived.set()
            return True
        missing = dict(states)
        for result in await asyncio.gather(
            *(ask_leader(self._cluster, node, group, self._isolation) for node, group in groups),
            return_exceptions=True,
        ):
            if isinstance(result, BrokerError):
                for state in missing.values():
                    state.error = result
                missing.clear()
            elif isinstance(result, BaseException):
                raise result
            else:
                for tp, found in result[0].items():
                    state = missing.pop(tp)
                    if state.position is None and state.reset_to == resets[tp]:
                        info = self._cluster.metadata.partition(tp)
                        state.seek(found.offset)
                        state.leader_epoch = info.leader_epoch if info is not None else -1
                        self._fetcher.wake(tp)
        self._assignment.arrived.set()
        return not missing

    async def _validate(self, states: list[PartitionState]) -> bool:
        """Ask new leaders where the epoch before each position ended; tell whether all answered."""
        groups: dict[int, tuple[Node, list[PartitionState]]] = {}
        for state in states:
            node = self._cluster.metadata.leader_of(state.tp)
            if node is not None:
                groups.setdefault(node.node_id, (node, []))[1].append(state)
        missing = dict.fromkeys(states)
        for node, group in groups.values():
            positions = {state: (state.position, state.position_epoch) for state in group}
            for state, epoch, answer in await self._ask_epochs(node, group):
                if not state.must_validate or positions[state] != (state.position, state.position_epoch):
                    missing.pop(state, None)  # A seek came in between; there is nothing to check any more.
                elif self._validated(state, epoch, answer):
                    missing.pop(state, None)
        return not missing

    async def _ask_epochs(
        self, node: Node, group: list[PartitionState]
    ) -> list[tuple[PartitionState, int, OffsetForLeaderEpochResponsePartition]]:
        topics: dict[str, list[OffsetForLeaderEpochPartition]] = {}
        epochs: dict[TopicPartition, tuple[PartitionState, int]] = {}
        for state in group:
            info = self._cluster.metadata.partition(state.tp)
            if info is None:
                continue  # Others were asked meanwhile, and the topic is gone, for now or for good.
            epochs[state.tp] = (state, info.leader_epoch)
            topics.setdefault(state.tp.topic, []).append(
                OffsetForLeaderEpochPartition(
                    partition=state.tp.partition,
                    current_leader_epoch=info.leader_epoch,
                    leader_epoch=state.position_epoch,
                )
            )
        request = OffsetForLeaderEpochRequest(
            replica_id=-1,
            topics=[OffsetForLeaderEpochTopic(topic=t, partitions=parts) for t, parts in topics.items()],
        )
        try:
            answer = await self._cluster.ask(
                node,
                request,
                OffsetForLeaderEpochResponse,
                lane="control",
                timeout_ms=self._request_timeout_ms,
            )
        except (ConnectionFailed, rpc.RequestRefused):
            return []  # Remembered per address; asked again after a back-off.
        return [
            (*epochs[TopicPartition(topic.topic, p.partition)], p)
            for topic in answer.topics
            for p in topic.partitions
            if TopicPartition(topic.topic, p.partition) in epochs
        ]

    def _validated(
        self, state: PartitionState, epoch: int, answer: OffsetForLeaderEpochResponsePartition
    ) -> bool:
        """Draw the conclusion from a new leader's answer; False where it must be asked again."""
        if answer.error_code != ErrorCode.NONE:
            error = error_for(answer.error_code, f"{state.tp}")
            if error.retriable:
                return False
            state.must_validate = False
            state.error = error
            self._assignment.arrived.set()
            return True
        assert state.position is not None
        is_unknown = answer.end_offset < 0 or answer.leader_epoch < 0
        if not is_unknown and answer.end_offset >= state.position:
            state.must_validate = False
        elif self._reset is not None:
            if is_unknown:
                state.reset(self._reset)
                self._assignment.unsettled.set()
            else:
                state.seek(answer.end_offset, answer.leader_epoch)
        else:
            divergent = None if is_unknown else answer.end_offset
            error_seen = LogTruncationError(state.tp, state.position, divergent)
            state.must_validate = False
            state.error = error_seen
            self._assignment.arrived.set()
        state.leader_epoch = epoch
        self._fetcher.wake(state.tp)
        return True
