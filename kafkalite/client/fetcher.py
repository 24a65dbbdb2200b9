"""Fetching: one loop a leader asks for all partitions it leads, ahead of the caller by a bounded amount.

A fetch is a long poll; what comes back waits in :mod:`.subscription` until it is handed out. A partition is
asked for again when at most one answer of it waits. While a partition is left out for that reason, long
polls for the others last no longer than it has been left out, so that it is never kept waiting for long when
the caller catches up.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from kafkalite.client.assignment import Assignment
from kafkalite.client.background import Background
from kafkalite.client.cluster import Cluster, backoff_ms
from kafkalite.client.metadata import Node
from kafkalite.client.subscription import Chunk, PartitionState
from kafkalite.common import TopicPartition
from kafkalite.edge import ConnectionFailed
from kafkalite.protocol.errors import BrokerError, CorruptMessageError, ErrorCode, error_for
from kafkalite.protocol.fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchResponsePartition,
    FetchTopic,
)
from kafkalite.transport import rpc

_SHORTEST_POLL_MS: Final = 5
_SLOW_ANSWER_MS: Final = 1000
"""How long past its long poll a leader may be silent before metadata is asked for."""


class FetchConfig(msgspec.Struct, frozen=True):
    """How to fetch, by Kafka's names."""

    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    max_partition_bytes: int
    isolation_level: int
    request_timeout_ms: int
    reset_to: int | None
    """`auto.offset.reset`: where to go when a position is out of range; None is nowhere."""


class Fetcher:
    """Fills the buffers of the assigned partitions."""

    def __init__(
        self, config: FetchConfig, cluster: Cluster, assignment: Assignment, background: Background
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._clock = cluster.clock
        self._assignment = assignment
        self._background = background
        self._loops: dict[int, asyncio.Event] = {}
        """What wakes the fetch loop of each leader."""

    def sync(self) -> None:
        """Something about positions or leaders changed: see to it that there is a loop for each leader."""
        for tp in self._assignment.states:
            node = self._cluster.metadata.leader_of(tp)
            if node is not None and node.node_id not in self._loops:
                self._loops[node.node_id] = asyncio.Event()
                self._background.spawn(self._fetch_loop(node.node_id), f"fetch from {node}")
        for event in self._loops.values():
            event.set()
        self._assignment.unsettled.set()
        self._assignment.arrived.set()

    def wake(self, tp: TopicPartition) -> None:
        """There may be something to ask the leader of ``tp`` for."""
        info = self._cluster.metadata.partition(tp)
        if info is not None and info.leader in self._loops:
            self._loops[info.leader].set()

    async def _fetch_loop(self, node_id: int) -> None:
        """Fetch from one broker what it leads, until it leads nothing that is read."""
        metadata = self._cluster.metadata
        event = self._loops[node_id]
        loop = asyncio.get_running_loop()
        try:
            while True:
                event.clear()
                node = metadata.nodes.get(node_id)
                led = [
                    state
                    for tp, state in self._assignment.states.items()
                    if (info := metadata.partition(tp)) is not None and info.leader == node_id
                ]
                if node is None or not led:
                    return
                now = self._clock.monotonic()
                wanted, moments, left_out = [], [], []
                for state in led:
                    if state.has_enough:
                        if state.enough_since is None:
                            state.enough_since = now
                        left_out.append(state.enough_since)
                        continue
                    state.enough_since = None
                    if not state.wants_data:
                        continue
                    if state.retry_at > now:
                        moments.append(state.retry_at)
                    else:
                        wanted.append(state)
                pause = self._cluster.backs_off_until(node.address)
                if wanted and pause > now:
                    moments.append(pause)
                    wanted = []
                if wanted:
                    max_wait_ms = self._config.max_wait_ms
                    if left_out:
                        # Until this is answered nobody asks for those: whose buffer filled just now may
                        # be read just as soon.
                        full_ms = int((now - max(left_out)) * 1000)
                        max_wait_ms = min(max_wait_ms, max(_SHORTEST_POLL_MS, full_ms))
                    await self._fetch(node, wanted, max_wait_ms)
                    continue
                timer = loop.call_later(max(0.0, min(moments) - now), event.set) if moments else None
                try:
                    await event.wait()
                finally:
                    if timer is not None:
                        timer.cancel()
        finally:
            del self._loops[node_id]

    async def _fetch(self, node: Node, wanted: list[PartitionState], max_wait_ms: int) -> None:
        token = object()
        topics: dict[str, list[FetchPartition]] = {}
        asked: dict[TopicPartition, tuple[PartitionState, int]] = {}
        for state in wanted:
            info = self._cluster.metadata.partition(state.tp)
            assert info is not None
            state.fetching = token
            asked[state.tp] = (state, state.fetch_offset)
            topics.setdefault(state.tp.topic, []).append(
                FetchPartition(
                    partition=state.tp.partition,
                    current_leader_epoch=info.leader_epoch,
                    fetch_offset=state.fetch_offset,
                    partition_max_bytes=self._config.max_partition_bytes,
                )
            )
        request = FetchRequest(
            max_wait_ms=max_wait_ms,
            min_bytes=self._config.min_bytes,
            max_bytes=self._config.max_bytes,
            isolation_level=self._config.isolation_level,
            topics=[FetchTopic(topic=name, partitions=parts) for name, parts in topics.items()],
        )
        suspicion = asyncio.get_running_loop().call_later(
            (max_wait_ms + _SLOW_ANSWER_MS) / 1000, self._cluster.request_refresh
        )
        answers: dict[TopicPartition, FetchResponsePartition] = {}
        error: BrokerError | None = None
        try:
            answer = await self._cluster.ask(
                node, request, FetchResponse, lane="fetch", timeout_ms=self._config.request_timeout_ms
            )
            if answer.error_code != ErrorCode.NONE:
                error = error_for(answer.error_code, f"fetch from {node}")
            else:
                self._cluster.metadata.hint_nodes(
                    Node(n.node_id, n.host, n.port, n.rack) for n in answer.node_endpoints
                )
                answers = {
                    TopicPartition(topic.topic, p.partition_index): p
                    for topic in answer.responses
                    for p in topic.partitions
                }
        except ConnectionFailed as lost:
            error = error_for(ErrorCode.NETWORK_EXCEPTION, str(lost))
        except rpc.RequestRefused as refusal:
            code = ErrorCode.NETWORK_EXCEPTION if refusal.status == 503 else refusal.error_code
            error = error_for(code or ErrorCode.INVALID_REQUEST, str(refusal))
        finally:
            suspicion.cancel()
        for tp, (state, offset) in asked.items():
            if state.fetching is not token:
                continue  # The position was moved meanwhile, or the leader is another one.
            state.fetching = None
            p = answers.get(tp)
            if p is None:
                missing = f"{node} did not answer for this partition"
                failure = error or error_for(ErrorCode.NETWORK_EXCEPTION, missing)
                self._fetch_failed(state, failure, (-1, -1), offset)
            elif p.error_code != ErrorCode.NONE:
                hint = (p.current_leader.leader_id, p.current_leader.leader_epoch)
                self._fetch_failed(state, error_for(p.error_code, f"{tp} at broker {node}"), hint, offset)
            else:
                self._fetched(state, p)
        self._assignment.arrived.set()

    def _fetched(self, state: PartitionState, answer: FetchResponsePartition) -> None:
        state.failures = 0
        state.high_watermark = answer.high_watermark
        state.last_stable_offset = answer.last_stable_offset
        state.log_start_offset = answer.log_start_offset
        if answer.records is not None and len(answer.records):
            try:
                state.add(Chunk(answer.records))
            except CorruptMessageError as error:
                state.error = CorruptMessageError(
                    f"{state.tp} at offset {state.fetch_offset}: {error.message}"
                )

    def _fetch_failed(
        self, state: PartitionState, error: BrokerError, leader: tuple[int, int], offset: int
    ) -> None:
        if error.code == ErrorCode.OFFSET_OUT_OF_RANGE:
            if offset == state.position and self._config.reset_to is not None:
                state.reset(self._config.reset_to)
                self._assignment.unsettled.set()
            elif offset == state.position:
                state.error = error_for(error.code, f"the position {offset} of {state.tp} is not in its log")
            else:  # What is buffered ends there; whether that is a fault shows when it is handed out.
                state.refetch()
            return
        if not error.retriable:
            state.error = error
            return
        cluster = self._cluster
        state.failures += 1
        now = self._clock.monotonic()
        wait = backoff_ms(
            state.failures, cluster.retry_backoff_ms, cluster.retry_backoff_max_ms, cluster.chance
        )
        state.retry_at = now + wait / 1000
        if error.refresh_metadata or error.code == ErrorCode.UNKNOWN_LEADER_EPOCH:
            if leader[0] >= 0 and cluster.metadata.hint_leader(state.tp, *leader):
                state.retry_at = 0.0
                cluster.changed()
            else:
                cluster.request_refresh()
