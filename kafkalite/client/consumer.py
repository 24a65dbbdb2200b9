"""The consumer: what its caller sees of reading partitions, alone or as a member of a group.

:class:`Consumer` says which partitions are read and answers for positions and commits. Tasks and rules are
elsewhere: :mod:`.fetcher` asks the leaders for records, :mod:`.positions` finds where to begin and uncovers
truncations, :mod:`.handing_out` gives the caller what came, :mod:`.group` says which partitions of the
subscribed topics are this consumer's. They meet in :mod:`.assignment`.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from itertools import chain
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from kafkalite.client.assignment import Assignment
from kafkalite.client.assignors import COOPERATIVE_STICKY, Assignor, assignor
from kafkalite.client.background import Background
from kafkalite.client.cluster import Cluster
from kafkalite.client.errors import (
    ClientClosedError,
    ClientTimeoutError,
    CommitFailedError,
    IllegalStateError,
    NoGroupError,
)
from kafkalite.client.fetcher import FetchConfig, Fetcher
from kafkalite.client.group.listener import RebalanceListener
from kafkalite.client.group.membership import GroupConfig, Membership
from kafkalite.client.handing_out import HandingOut
from kafkalite.client.offsets import (
    EARLIEST,
    LATEST,
    READ_COMMITTED,
    READ_UNCOMMITTED,
    list_offsets,
    tuple_of,
)
from kafkalite.client.positions import Positions
from kafkalite.client.records import (
    ConsumerRecord,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    RecordColumns,
)
from kafkalite.client.subscription import Deserializer, PartitionState
from kafkalite.common import TopicPartition
from kafkalite.edge import Clock, SystemClock, Transport, system_random
from kafkalite.protocol.errors import (
    BrokerError,
    ErrorCode,
)
from kafkalite.protocol.metadata import MetadataRequest, MetadataResponse
from kafkalite.transport.http import HttpTransport

_ISOLATION: Final = {"read_uncommitted": READ_UNCOMMITTED, "read_committed": READ_COMMITTED}
_RESET: Final = {"latest": LATEST, "earliest": EARLIEST, "none": None}

PartT = TypeVar("PartT", list[ConsumerRecord], RecordColumns)


class Consumer:
    """Reads records; use it as ``async with Consumer(...) as consumer``.

    Arguments and methods are those of aiokafka's consumer. One caller reads at a time.
    """

    def __init__(
        self,
        *topics: str,
        bootstrap_servers: str | Sequence[str] = "localhost:9092",
        client_id: str = "kafkalite-consumer",
        group_id: str | None = None,
        group_instance_id: str | None = None,
        client_rack: str | None = None,
        partition_assignment_strategy: Sequence[str | Assignor] = (COOPERATIVE_STICKY,),
        session_timeout_ms: int = 45_000,
        heartbeat_interval_ms: int = 3000,
        max_poll_interval_ms: int = 300_000,
        enable_auto_commit: bool = True,
        auto_commit_interval_ms: int = 5000,
        key_deserializer: Deserializer | None = None,
        value_deserializer: Deserializer | None = None,
        auto_offset_reset: str = "latest",
        fetch_max_wait_ms: int = 500,
        fetch_min_bytes: int = 1,
        fetch_max_bytes: int = 52_428_800,
        max_partition_fetch_bytes: int = 1_048_576,
        max_poll_records: int = 500,
        check_crcs: bool = True,
        isolation_level: str = "read_uncommitted",
        allow_auto_create_topics: bool = True,
        exclude_internal_topics: bool = True,
        request_timeout_ms: int = 30_000,
        default_api_timeout_ms: int = 60_000,
        retry_backoff_ms: int = 100,
        retry_backoff_max_ms: int = 1000,
        metadata_max_age_ms: int = 300_000,
        transport: Transport | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """Connect to nothing yet; ``topics`` are subscribed to.

        ``auto_offset_reset``: where to begin without a position, "latest", "earliest" or "none" (an error).
        A fetch returns at ``fetch_min_bytes`` or after ``fetch_max_wait_ms``, with at most
        ``fetch_max_bytes`` in all and ``max_partition_fetch_bytes`` a partition (one batch may be larger).
        ``max_poll_records`` bounds `getmany`. ``isolation_level``: without transactions nothing is
        undecided below the high watermark, so both levels read the same. ``exclude_internal_topics`` is
        about patterns. ``default_api_timeout_ms`` bounds each look-up of offsets. Deserialisers get bytes;
        a missing key or value stays None. ``transport``, ``clock`` and ``chance`` replace the network, time
        and entropy in simulations.

        ``group_id``: share the subscribed topics with the other consumers of that group, and keep its
        offsets; without it all partitions are read and nothing is committed. ``group_instance_id`` makes a
        static member, which keeps its partitions over a restart within ``session_timeout_ms``.
        ``partition_assignment_strategy``: assignors by name, the preferred one first; with a
        ``client_rack`` they prefer partitions that have a replica in that rack (KIP-881).

        Heartbeats are sent every ``heartbeat_interval_ms`` by a task that nothing of the caller's holds up
        but code that blocks the event loop. Apart from them, a caller that does not read for
        ``max_poll_interval_ms`` leaves the group until it does. ``enable_auto_commit``: what was processed is
        committed every ``auto_commit_interval_ms``, before partitions are given up, and at the stop.

        Raises ValueError for values that cannot be.
        """
        if group_id == "":
            raise ValueError("group_id: is empty; leave it out to read without a group")
        if group_instance_id == "":
            raise ValueError("group_instance_id: is empty")
        if group_id is None and group_instance_id is not None:
            raise ValueError("group_instance_id: there is no group_id that it is an instance of")
        if not 0 < heartbeat_interval_ms < session_timeout_ms:
            raise ValueError(
                f"heartbeat_interval_ms ({heartbeat_interval_ms}) must be positive and less than "
                f"session_timeout_ms ({session_timeout_ms})"
            )
        if max_poll_interval_ms < 1:
            raise ValueError(f"max_poll_interval_ms: {max_poll_interval_ms} is less than 1")
        if auto_commit_interval_ms < 1:
            raise ValueError(f"auto_commit_interval_ms: {auto_commit_interval_ms} is less than 1")
        assignors = [assignor(a) if isinstance(a, str) else a for a in partition_assignment_strategy]
        if not assignors or len({a.name for a in assignors}) < len(assignors):
            raise ValueError("partition_assignment_strategy: at least one assignor, each once")
        if auto_offset_reset not in _RESET:
            raise ValueError(f"auto_offset_reset: {auto_offset_reset!r} is none of {', '.join(_RESET)}")
        if isolation_level not in _ISOLATION:
            raise ValueError(f"isolation_level: {isolation_level!r} is none of {', '.join(_ISOLATION)}")
        if max_poll_records < 1:
            raise ValueError(f"max_poll_records: {max_poll_records} is less than 1")
        if request_timeout_ms <= fetch_max_wait_ms:
            raise ValueError(
                f"request_timeout_ms ({request_timeout_ms}) is not more than fetch_max_wait_ms "
                f"({fetch_max_wait_ms}): a fetch that waits for records would time out"
            )
        self._clock = clock or SystemClock()
        self._chance = chance or system_random()
        self._isolation = _ISOLATION[isolation_level]
        self._max_poll_records = max_poll_records
        self._exclude_internal = exclude_internal_topics
        self._request_timeout_ms = request_timeout_ms
        self._api_timeout_ms = default_api_timeout_ms
        self._cluster = Cluster(
            bootstrap_servers=bootstrap_servers,
            client_id=client_id,
            transport=transport or HttpTransport(),
            clock=self._clock,
            chance=self._chance,
            request_timeout_ms=request_timeout_ms,
            metadata_max_age_ms=metadata_max_age_ms,
            retry_backoff_ms=retry_backoff_ms,
            retry_backoff_max_ms=retry_backoff_max_ms,
            allow_auto_create_topics=allow_auto_create_topics,
        )
        self._cluster.on_change(self._metadata_changed)
        self._background = Background("consumer", self._failed)
        self._is_open = False
        self._is_leaving = False
        self._fault: BaseException | None = None
        self._pattern: re.Pattern[str] | None = None
        self._assignment = Assignment()
        self._auto_commit_ms = (
            auto_commit_interval_ms if enable_auto_commit and group_id is not None else None
        )
        self._group: Membership | None = None
        if group_id is not None:
            config = GroupConfig(
                group_id,
                group_instance_id,
                session_timeout_ms,
                heartbeat_interval_ms,
                max_poll_interval_ms,
                assignors,
                enable_auto_commit,
                client_rack,
            )
            self._group = Membership(config, self._cluster, self)
        reset_to = _RESET[auto_offset_reset]
        self._fetcher = Fetcher(
            FetchConfig(
                max_wait_ms=fetch_max_wait_ms,
                min_bytes=fetch_min_bytes,
                max_bytes=fetch_max_bytes,
                max_partition_bytes=max_partition_fetch_bytes,
                isolation_level=self._isolation,
                request_timeout_ms=request_timeout_ms,
                reset_to=reset_to,
            ),
            self._cluster,
            self._assignment,
            self._background,
        )
        self._positions = Positions(
            self._cluster,
            self._assignment,
            self._fetcher,
            coordinator=self._group.coordinator if self._group is not None else None,
            reset_to=reset_to,
            isolation_level=self._isolation,
            request_timeout_ms=request_timeout_ms,
            sync=self._sync,
        )
        self._handing_out = HandingOut(
            self._assignment,
            self._fetcher,
            self._group,
            self._clock,
            key_deserializer=key_deserializer,
            value_deserializer=value_deserializer,
            check_crcs=check_crcs,
            check_open=self._check,
        )
        if topics:
            self.subscribe(topics)

    # --- Life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find the cluster.

        Raises ClusterUnreachableError when no bootstrap address answers; it may then be tried again.
        """
        await self._cluster.begin(self._background)
        self._is_open = True
        self._handing_out.last_read = self._clock.monotonic()
        self._background.spawn(self._cluster.keep_fresh(), "metadata")
        self._background.spawn(self._positions.run(), "positions")
        if self._group is not None:
            self._group.start(self._background)
        if self._auto_commit_ms is not None:
            self._background.spawn(self._auto_commit(self._auto_commit_ms), "auto commit")
        self._metadata_changed()

    async def stop(self) -> None:
        """Close the connections; who waits for records gets ClientClosedError.

        In a group: what was handed out counts as processed, is committed (where commits are automatic), the
        listener hears of the revocation, and the member leaves, unless it is static.
        """
        self._handing_out.processed_all()
        await self.abandon()

    async def abandon(self) -> None:
        """Stop without taking what was last handed out for processed: whoever comes next gets it again."""
        was_open = self._is_open
        self._is_open = False
        self._handing_out.interrupt()
        self._assignment.arrived.set()
        if self._group is not None and was_open and self._background.is_running:
            self._is_leaving = True  # The listener may still commit.
            await self._group.stop()
            self._is_leaving = False
        await self._background.stop()
        await self._cluster.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.stop()
        else:  # What the caller was at is not processed.
            await self.abandon()

    def _failed(self, fault: BaseException) -> None:
        self._fault = fault
        self._is_open = False
        self._handing_out.interrupt()
        self._assignment.arrived.set()

    def _check(self) -> None:
        if self._fault is not None:
            raise ClientClosedError("the consumer has failed") from self._fault
        if not self._is_open:
            raise ClientClosedError("the consumer is not started, or is stopped")

    # --- What to read --------------------------------------------------------------------------

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read exactly ``partitions``; those that were assigned before go on where they are.

        Raises IllegalStateError after `subscribe`.
        """
        if self._assignment.topics or self._pattern is not None:
            raise IllegalStateError(
                "partitions cannot be assigned while topics are subscribed: unsubscribe first"
            )
        wanted = tuple_of(partitions)
        self._assignment.is_by_hand = True
        self._cluster.want_only(dict.fromkeys(tp.topic for tp in wanted))
        self._set_assignment(wanted)

    def subscribe(
        self,
        topics: Iterable[str] = (),
        pattern: str | None = None,
        listener: RebalanceListener | None = None,
    ) -> None:
        """Read all partitions of ``topics``, or of all topics whose names ``pattern`` (a regex) matches.

        In a group: this consumer's share of them; ``listener`` hears what comes and goes.
        Replaces the subscription before. Topics and partitions that come later are noticed at the next
        refresh of metadata. Raises IllegalStateError after `assign`.
        """
        if self._assignment.is_by_hand:
            raise IllegalStateError(
                "topics cannot be subscribed while partitions are assigned: unsubscribe first"
            )
        if isinstance(topics, str):
            raise TypeError("topics: expected several names, got one str")
        names = frozenset(topics)
        if bool(names) == (pattern is not None):
            raise ValueError("subscribe to topics, or to a pattern")
        if listener is not None and self._group is None:
            raise NoGroupError("a listener hears of rebalances, and without a group_id there are none")
        if self._group is not None:
            self._group.listener = listener
        self._assignment.topics = names
        self._pattern = re.compile(pattern) if pattern is not None else None
        self._cluster.want_only(sorted(names), every_topic=pattern is not None)
        self._follow_subscription()

    def unsubscribe(self) -> None:
        """Read nothing, and leave the group; afterwards `assign` and `subscribe` are both possible."""
        if self._group is not None and (self._assignment.topics or self._pattern is not None):
            self._handing_out.processed_all()
            self._group.unsubscribe(self.processed(tuple(self._assignment.states)))
        self._assignment.topics = frozenset()
        self._pattern = None
        self._assignment.is_by_hand = False
        self._cluster.want_only(())
        self._set_assignment(())

    def subscription(self) -> frozenset[str]:
        """The topics subscribed to; with a pattern those that it matches now."""
        if self._pattern is None:
            return self._assignment.topics
        return frozenset(self._matching())

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are read; in a group those that are this consumer's at the moment."""
        return frozenset(self._assignment.states)

    def _matching(self) -> list[str]:
        assert self._pattern is not None
        return sorted(
            name
            for name, info in self._cluster.metadata.topics.items()
            if self._pattern.match(name) and not (info.is_internal and self._exclude_internal)
        )

    def _follow_subscription(self) -> None:
        topics = self._matching() if self._pattern is not None else sorted(self._assignment.topics)
        metadata = self._cluster.metadata
        if self._group is not None:
            if self._pattern is None or metadata.version:  # Before that, no pattern matches anything.
                self._group.subscribe(topics)
            self._group.metadata_changed({name: info.count for name, info in metadata.topics.items()})
            return
        wanted = []
        for topic in topics:
            info = metadata.topics.get(topic)
            if info is not None:
                wanted += [TopicPartition(topic, index) for index in info.partitions]
            elif metadata.topic_errors.get(topic) != ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                # Not known at the moment for another reason than that it is gone: keep the place.
                wanted += [tp for tp in self._assignment.states if tp.topic == topic]
        self._set_assignment(wanted)

    def _set_assignment(self, wanted: Iterable[TopicPartition]) -> None:
        before = self._assignment.states
        self._handing_out.interrupt()
        self._assignment.states = {}
        for tp in wanted:
            state = before.get(tp)
            if state is None:
                state = PartitionState(tp)
                if self._group is not None:
                    state.wants_committed = True
                else:
                    self._positions.reset_or_fail(state)
            self._assignment.states[tp] = state
        if list(before) != list(self._assignment.states):
            self._sync()

    # --- Positions -----------------------------------------------------------------------------

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read ``partition`` from ``offset`` on. Raises IllegalStateError if it is not assigned."""
        if offset < 0:
            raise ValueError(f"offset: {offset} is negative")
        state = self._assignment.state(partition)
        info = self._cluster.metadata.partition(state.tp)
        state.seek(offset)
        state.leader_epoch = info.leader_epoch if info is not None else -1
        self._sync()

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Read ``partitions`` (all assigned by default) from their log start offset on.

        Returns when the positions are known. Raises as `position` does.
        """
        await self._seek_to(partitions, EARLIEST)

    async def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Read ``partitions`` (all assigned by default) from their high watermark on; as above."""
        await self._seek_to(partitions, LATEST)

    async def seek_to_committed(self, *partitions: TopicPartition) -> dict[TopicPartition, int | None]:
        """Read ``partitions`` (all assigned by default) from where the group is; return where that is.

        Where nothing is committed, `auto_offset_reset` says. Raises NoGroupError, and as `committed` does.
        """
        self._check()
        states = self._assignment.chosen(partitions)
        found = await self._committed([state.tp for state in states])
        for state in states:
            if self._assignment.states.get(state.tp) is state:
                self._positions.go_to_committed(state, found.get(state.tp))
        self._sync()
        return {state.tp: found[state.tp].offset if state.tp in found else None for state in states}

    async def _seek_to(self, partitions: tuple[TopicPartition, ...], to: int) -> None:
        self._check()
        states = self._assignment.chosen(partitions)
        for state in states:
            state.reset(to)
        self._sync()
        for state in states:
            await self.position(state.tp)

    async def position(self, partition: TopicPartition) -> int:
        """The offset of the next record that will be handed out.

        Waits until it is known. Raises NoOffsetForPartitionError, an error of the leader that trying again
        does not help, ClientTimeoutError or ClusterUnreachableError after `default_api_timeout_ms`.
        """
        self._check()
        state = self._assignment.state(partition)
        try:
            async with asyncio.timeout(self._api_timeout_ms / 1000):
                while state.position is None:
                    if state.reset_to is None and self._group is not None and state.error is None:
                        state.wants_committed = True  # A listener asks before reading begins.
                        self._assignment.unsettled.set()
                    if state.error is not None:
                        self._assignment.unsettled.set()
                        raise state.take_error()
                    self._assignment.arrived.clear()
                    await self._assignment.arrived.wait()
                    self._check()
        except TimeoutError as timeout:
            if isinstance(timeout, ClientTimeoutError):
                raise
            self._cluster.raise_timeout(f"no position for {state.tp}", self._api_timeout_ms)
        return state.position

    def pause(self, *partitions: TopicPartition) -> None:
        """Hand out nothing of ``partitions`` until they are resumed; positions stay."""
        for state in self._assignment.chosen(partitions):
            state.is_paused = True

    def resume(self, *partitions: TopicPartition) -> None:
        """End a pause."""
        for state in self._assignment.chosen(partitions):
            state.is_paused = False
        self._assignment.arrived.set()
        self._sync()

    def paused(self) -> frozenset[TopicPartition]:
        """The partitions that are paused."""
        return frozenset(tp for tp, state in self._assignment.states.items() if state.is_paused)

    def highwater(self, partition: TopicPartition) -> int | None:
        """The high watermark of the last fetch answer: where committed records end (exclusive)."""
        return self._assignment.state(partition).high_watermark

    def last_stable_offset(self, partition: TopicPartition) -> int | None:
        """The last stable offset of the last fetch answer: where decided records end (exclusive)."""
        return self._assignment.state(partition).last_stable_offset

    # --- The group -----------------------------------------------------------------------------

    async def commit(
        self, offsets: Mapping[TopicPartition, int | tuple[int, str] | OffsetAndMetadata] | None = None
    ) -> None:
        """Commit ``offsets`` (of the next records to read), by default all positions.

        By default what was handed out counts as processed: the caller says so. A rebalance that is under way
        is waited for. Raises CommitFailedError where partitions went to other members, FencedInstanceIdError,
        OffsetMetadataTooLargeError and others of the coordinator, NoGroupError, and ClientTimeoutError or
        ClusterUnreachableError after `default_api_timeout_ms`.
        """
        if not self._is_leaving:
            self._check()
        group = self._needs_group()
        if offsets is None:
            wanted = {
                tp: OffsetAndMetadata(state.position, "", state.last_epoch)
                for tp, state in self._assignment.states.items()
                if state.position is not None
            }
        else:
            wanted = {TopicPartition(*tp): _offset_and_metadata(offset) for tp, offset in offsets.items()}
        try:
            async with asyncio.timeout(self._api_timeout_ms / 1000):
                await group.commit(wanted)
        except TimeoutError as timeout:
            if isinstance(timeout, ClientTimeoutError):
                raise
            self._cluster.raise_timeout(
                f"group {group.coordinator.group_id} committed nothing", self._api_timeout_ms
            )

    async def committed(self, partition: TopicPartition) -> int | None:
        """The group's committed offset in ``partition``, None where there is none.

        Raises NoGroupError, the coordinator's errors, ClientTimeoutError or ClusterUnreachableError.
        """
        if not self._is_leaving:
            self._check()
        tp = TopicPartition(*partition)
        found = await self._committed([tp])
        return found[tp].offset if tp in found else None

    async def _committed(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        return await self._needs_group().coordinator.committed_in_time(
            partitions, timeout_ms=self._api_timeout_ms
        )

    def _needs_group(self) -> Membership:
        if self._group is None:
            raise NoGroupError("offsets are committed by groups, and this consumer has no group_id")
        return self._group

    async def _auto_commit(self, interval_ms: int) -> None:
        """Commit what was processed, now and again, for ever."""
        assert self._group is not None
        done: dict[TopicPartition, OffsetAndMetadata] = {}
        while True:
            await asyncio.sleep(interval_ms / 1000)
            offsets = self.processed(tuple(self._assignment.states))
            if offsets == done:
                continue
            try:
                async with asyncio.timeout(self._api_timeout_ms / 1000):
                    await self._group.commit(offsets, may_wait=False)
                done = offsets
            except (CommitFailedError, TimeoutError):
                pass  # The next time, or whoever owns them now reads again what was not committed.
            except BrokerError as error:
                if not error.retriable and error.code != ErrorCode.REBALANCE_IN_PROGRESS:
                    self.raise_at_next_read(error)

    # What the membership asks of its reader (group.membership.Reader).

    def withhold(self, partitions: Sequence[TopicPartition]) -> None:
        """Hand out nothing more of ``partitions``, which are being revoked."""
        self._handing_out.withhold(partitions)

    async def until_processed(self, partitions: Sequence[TopicPartition]) -> None:
        """Wait until the caller is done with what it got of ``partitions``."""
        await self._handing_out.until_processed(partitions)

    def processed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """How far the caller has come in ``partitions``, where that is known."""
        return self._handing_out.processed(partitions)

    def raise_at_next_read(self, error: Exception) -> None:
        """Tell the caller of ``error``."""
        self._handing_out.raise_at_next_read(error)

    def time_without_read(self) -> float:
        """For how many seconds the caller has not been reading."""
        return self._handing_out.time_without_read()

    def own(self, partitions: Sequence[TopicPartition]) -> None:
        """Read ``partitions`` and no others; new ones wait for `begin`."""
        new = [tp for tp in partitions if tp not in self._assignment.states]
        self._set_assignment(partitions)
        for tp in new:
            self._assignment.states[tp].is_withheld = True
            self._assignment.states[tp].wants_committed = False
        self._handing_out.keep_assigned()

    def begin(self, partitions: Sequence[TopicPartition]) -> None:
        """Read ``partitions`` from where the listener put them, or from where the group is."""
        for tp in partitions:
            state = self._assignment.states.get(tp)
            if state is not None:
                state.is_withheld = False
                if state.position is None and state.reset_to is None and state.error is None:
                    state.wants_committed = True
        self._sync()

    def look_again(self) -> None:
        """What kept records back may be over."""
        self._assignment.arrived.set()

    async def count(self, topics: Sequence[str]) -> dict[str, int]:
        """The partitions of ``topics``, as the cluster says now."""
        self._cluster.want(topics)
        try:
            async with asyncio.timeout(self._request_timeout_ms / 1000):
                await self._cluster.refreshed()
        except TimeoutError:
            pass  # What is known has to do; a change is noticed when metadata comes.
        known = self._cluster.metadata.topics
        return {topic: known[topic].count for topic in topics if topic in known}

    # --- Asking about topics and offsets -------------------------------------------------------

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """The partitions of ``topic`` if its metadata is known, else None."""
        info = self._cluster.metadata.topics.get(topic)
        return set(info.partitions) if info is not None else None

    async def topics(self) -> set[str]:
        """The names of all topics. Raises ClusterUnreachableError."""
        self._check()
        request = MetadataRequest(topics=None, allow_auto_topic_creation=False)
        answer = await self._cluster.ask_any(request, MetadataResponse)
        return {topic.name for topic in answer.topics if topic.name is not None}

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The log start offset of each partition, assigned or not."""
        return await self._offsets(dict.fromkeys(tuple_of(partitions), EARLIEST))

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset that the next readable record of each partition will have."""
        return await self._offsets(dict.fromkeys(tuple_of(partitions), LATEST))

    async def _offsets(self, wanted: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        self._check()
        found = await list_offsets(
            self._cluster, wanted, isolation_level=self._isolation, timeout_ms=self._api_timeout_ms
        )
        return {tp: found[tp].offset for tp in wanted}

    async def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after a time (ms since the Unix epoch); None where there is none."""
        self._check()
        for tp, timestamp in timestamps.items():
            if timestamp < 0:
                raise ValueError(f"the timestamp {timestamp} for {tp} is negative")
        found = await list_offsets(
            self._cluster, timestamps, isolation_level=self._isolation, timeout_ms=self._api_timeout_ms
        )
        return {
            tp: OffsetAndTimestamp(found[tp].offset, found[tp].timestamp) if found[tp].offset >= 0 else None
            for tp in timestamps
        }

    # --- Reading -------------------------------------------------------------------------------

    def getone(self, *partitions: TopicPartition) -> Coroutine[Any, Any, ConsumerRecord]:
        """Wait for the next record of ``partitions`` (all assigned by default) and return it.

        Raises what keeps a partition from being read: OffsetOutOfRangeError, NoOffsetForPartitionError,
        LogTruncationError, DeserializationError, CorruptMessageError, TopicAuthorizationFailedError.
        """
        return self._handing_out.one(partitions)

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Return records that are there, or wait up to ``timeout_ms`` for some.

        At most ``max_records`` (`max_poll_records` by default) in all; an empty dict after a time without
        any. Raises as `getone` does, but only when there is nothing to return besides.
        """
        limit = self._limit(max_records)
        found = await self._handing_out.many(partitions, timeout_ms, limit, PartitionState.take)
        return {tp: _flat(parts) for tp, parts in found.items()}

    async def getcolumns(
        self, *partitions: TopicPartition, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, RecordColumns]:
        """The records that `getmany` would return, as columns: no object is made a record.

        It may be mixed with the other ways to read: they share the position.
        """
        limit = self._limit(max_records)
        found = await self._handing_out.many(partitions, timeout_ms, limit, PartitionState.take_columns)
        return {tp: RecordColumns.joined(parts) for tp, parts in found.items()}

    def _limit(self, max_records: int | None) -> int:
        limit = max_records if max_records is not None else self._max_poll_records
        if limit < 1:
            raise ValueError(f"max_records: {limit} is less than 1")
        return limit

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ConsumerRecord:
        record = self._handing_out.at_hand()
        if record is not None:
            return record
        try:
            return await self._handing_out.one(())
        except ClientClosedError:
            if self._fault is not None:
                raise
            raise StopAsyncIteration from None

    # --- Fetching ------------------------------------------------------------------------------

    # --- Changes -------------------------------------------------------------------------------

    def _metadata_changed(self) -> None:
        if self._assignment.topics or self._pattern is not None:
            self._follow_subscription()
        self._positions.leaders_changed()
        self._sync()

    def _sync(self) -> None:
        """Something about positions or leaders changed: whoever fetches or waits looks again."""
        if self._is_open and self._background.is_running:
            self._fetcher.sync()


def _flat(parts: list[list[ConsumerRecord]]) -> list[ConsumerRecord]:
    return parts[0] if len(parts) == 1 else list(chain.from_iterable(parts))


def _offset_and_metadata(given: int | tuple[int, str] | OffsetAndMetadata) -> OffsetAndMetadata:
    found = OffsetAndMetadata(given) if isinstance(given, int) else OffsetAndMetadata(*given)
    if found.offset < 0:
        raise ValueError(f"offset: {found.offset} is negative")
    return found
