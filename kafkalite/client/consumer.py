"""The consumer: reads partitions from their leaders, ahead of its caller by a bounded amount.

One loop a leader asks for all partitions it leads, as a long poll; what comes back waits in
:mod:`.subscription` until it is handed out. A partition is asked for again when at most one answer of it
waits. While a partition is left out for that reason, long polls for the others last no longer than it has
been left out, so that it is never kept waiting for long when the caller catches up. A second task finds
positions: by `auto_offset_reset`, and after a change of leader by asking the new one where the epoch of the
last record read ended, which uncovers a log that was truncated behind the reader (KIP-320).

With a `group_id`, :mod:`.group` says which of the subscribed topics' partitions are this consumer's, and the
group's committed offsets are where they begin. What was handed out counts as *processed* once the caller asks
for more, or stops: no automatic commit goes further, and no partition is given up before.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from types import TracebackType
from typing import Final, Self, TypeVar

from kafkalite.client.assignors import COOPERATIVE_STICKY, Assignor, assignor
from kafkalite.client.background import Background
from kafkalite.client.cluster import Cluster, backoff_ms
from kafkalite.client.errors import (
    ClientClosedError,
    ClientTimeoutError,
    CommitFailedError,
    IllegalStateError,
    LogTruncationError,
    NoGroupError,
    NoOffsetForPartitionError,
)
from kafkalite.client.group import GroupConfig, Membership, RebalanceListener
from kafkalite.client.group.coordinator import TRY_AGAIN
from kafkalite.client.metadata import Node
from kafkalite.client.offsets import (
    EARLIEST,
    LATEST,
    READ_COMMITTED,
    READ_UNCOMMITTED,
    ask_leader,
    by_leader,
    list_offsets,
    tuple_of,
)
from kafkalite.client.records import (
    ConsumerRecord,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    RecordColumns,
)
from kafkalite.client.subscription import Chunk, Deserializer, PartitionState
from kafkalite.common import TopicPartition
from kafkalite.edge import Clock, ConnectionFailed, SystemClock, Transport, system_random
from kafkalite.protocol.errors import (
    BrokerError,
    CorruptMessageError,
    ErrorCode,
    FencedInstanceIdError,
    error_for,
)
from kafkalite.protocol.fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchResponsePartition,
    FetchTopic,
)
from kafkalite.protocol.metadata import MetadataRequest, MetadataResponse
from kafkalite.protocol.offset_for_leader_epoch import (
    OffsetForLeaderEpochPartition,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderEpochResponsePartition,
    OffsetForLeaderEpochTopic,
)
from kafkalite.transport import rpc
from kafkalite.transport.http import HttpTransport

_ISOLATION: Final = {"read_uncommitted": READ_UNCOMMITTED, "read_committed": READ_COMMITTED}
_RESET: Final = {"latest": LATEST, "earliest": EARLIEST, "none": None}
_SHORTEST_POLL_MS: Final = 5
_SLOW_ANSWER_MS: Final = 1000
"""How long past its long poll a leader may be silent before metadata is asked for."""

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
        self._key_deserializer = key_deserializer
        self._value_deserializer = value_deserializer
        self._reset = _RESET[auto_offset_reset]
        self._isolation = _ISOLATION[isolation_level]
        self._max_wait_ms = fetch_max_wait_ms
        self._min_bytes = fetch_min_bytes
        self._max_bytes = fetch_max_bytes
        self._partition_max_bytes = max_partition_fetch_bytes
        self._max_poll_records = max_poll_records
        self._check_crcs = check_crcs
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
        self._topics: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self._by_hand = False
        self._states: dict[TopicPartition, PartitionState] = {}
        self._loops: dict[int, asyncio.Event] = {}
        """What wakes the fetch loop of each leader."""
        self._positions = asyncio.Event()
        self._arrived = asyncio.Event()
        self._current: PartitionState | None = None
        """The partition whose open batch the last single record came from."""
        self._owes_a_turn = False
        """A batch was used up: the next read lets the fetchers have a turn of the loop first. Not the same
        one: if that were cancelled meanwhile, what it had taken would be lost."""
        self._group: Membership | None = None
        self._auto_commit_ms = (
            auto_commit_interval_ms if enable_auto_commit and group_id is not None else None
        )
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
        self._handed_out: list[PartitionState] = []
        """Of which partitions the caller got something that it may not have processed yet."""
        self._came_back = asyncio.Event()
        self._is_reading = False
        self._last_read = 0.0
        """When the caller last came for records, or went away with some."""
        self._group_errors: list[Exception] = []
        """What happened beside the caller and is to be raised by its next reads."""
        self._left_out_since: dict[int, float] = {}
        """Since when each leader's fetches leave out a partition that has enough buffered."""
        if topics:
            self.subscribe(topics)

    # --- Life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find the cluster. Raises ClusterUnreachableError when no bootstrap address answers."""
        await self._background.start()
        try:
            await self._cluster.bootstrap_once()
        except BaseException:
            await self._background.stop()
            await self._cluster.close()
            raise
        self._is_open = True
        self._last_read = self._clock.monotonic()
        self._background.spawn(self._cluster.keep_fresh(), "metadata")
        self._background.spawn(self._find_positions(), "positions")
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
        self._processed_all()
        await self.abandon()

    async def abandon(self) -> None:
        """Stop without taking what was last handed out for processed: whoever comes next gets it again."""
        was_open = self._is_open
        self._is_open = False
        self._current = None
        self._arrived.set()
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
        self._current = None
        self._arrived.set()

    def _check(self) -> None:
        if self._fault is not None:
            raise ClientClosedError("the consumer has failed") from self._fault
        if not self._is_open:
            raise ClientClosedError("the consumer is not started, or is stopped")

    def _check_read(self) -> None:
        self._check()
        if self._group_errors:
            error = self._group_errors[0]
            if not isinstance(error, FencedInstanceIdError):  # That one is for good.
                del self._group_errors[0]
            raise error

    # --- What to read --------------------------------------------------------------------------

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read exactly ``partitions``; those that were assigned before go on where they are.

        Raises IllegalStateError after `subscribe`.
        """
        if self._topics or self._pattern is not None:
            raise IllegalStateError(
                "partitions cannot be assigned while topics are subscribed: unsubscribe first"
            )
        wanted = tuple_of(partitions)
        self._by_hand = True
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
        if self._by_hand:
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
        self._topics = names
        self._pattern = re.compile(pattern) if pattern is not None else None
        self._cluster.want_only(sorted(names), every_topic=pattern is not None)
        self._follow_subscription()

    def unsubscribe(self) -> None:
        """Read nothing, and leave the group; afterwards `assign` and `subscribe` are both possible."""
        if self._group is not None and (self._topics or self._pattern is not None):
            self._processed_all()
            self._group.unsubscribe(self.processed(tuple(self._states)))
        self._topics = frozenset()
        self._pattern = None
        self._by_hand = False
        self._cluster.want_only(())
        self._set_assignment(())

    def subscription(self) -> frozenset[str]:
        """The topics subscribed to; with a pattern those that it matches now."""
        if self._pattern is None:
            return self._topics
        return frozenset(self._matching())

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are read; in a group those that are this consumer's at the moment."""
        return frozenset(self._states)

    def _matching(self) -> list[str]:
        assert self._pattern is not None
        return sorted(
            name
            for name, info in self._cluster.metadata.topics.items()
            if self._pattern.match(name) and not (info.is_internal and self._exclude_internal)
        )

    def _follow_subscription(self) -> None:
        topics = self._matching() if self._pattern is not None else sorted(self._topics)
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
                wanted += [tp for tp in self._states if tp.topic == topic]
        self._set_assignment(wanted)

    def _set_assignment(self, wanted: Iterable[TopicPartition]) -> None:
        before = self._states
        self._current = None
        self._states = {}
        for tp in wanted:
            state = before.get(tp)
            if state is None:
                state = PartitionState(tp)
                if self._group is not None:
                    state.wants_committed = True
                else:
                    self._reset_or_fail(state)
            self._states[tp] = state
        if list(before) != list(self._states):
            self._sync()

    def _reset_or_fail(self, state: PartitionState) -> None:
        """Apply `auto_offset_reset`."""
        if self._reset is not None:
            state.reset(self._reset)
        else:
            state.lose()
            state.error = NoOffsetForPartitionError([state.tp])

    def _state(self, partition: TopicPartition) -> PartitionState:
        state = self._states.get(TopicPartition(*partition))
        if state is None:
            raise IllegalStateError(f"{TopicPartition(*partition)} is not assigned")
        return state

    def _chosen(self, partitions: tuple[TopicPartition, ...]) -> list[PartitionState]:
        if partitions:
            return [self._state(tp) for tp in tuple_of(partitions)]
        return list(self._states.values())

    # --- Positions -----------------------------------------------------------------------------

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read ``partition`` from ``offset`` on. Raises IllegalStateError if it is not assigned."""
        if offset < 0:
            raise ValueError(f"offset: {offset} is negative")
        state = self._state(partition)
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
        states = self._chosen(partitions)
        found = await self._committed([state.tp for state in states])
        for state in states:
            if self._states.get(state.tp) is state:
                self._go_to_committed(state, found.get(state.tp))
        self._sync()
        return {state.tp: found[state.tp].offset if state.tp in found else None for state in states}

    async def _seek_to(self, partitions: tuple[TopicPartition, ...], to: int) -> None:
        self._check()
        states = self._chosen(partitions)
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
        state = self._state(partition)
        try:
            async with asyncio.timeout(self._api_timeout_ms / 1000):
                while state.position is None:
                    if state.reset_to is None and self._group is not None and state.error is None:
                        state.wants_committed = True  # A listener asks before reading begins.
                        self._positions.set()
                    if state.error is not None:
                        self._positions.set()
                        raise state.take_error()
                    self._arrived.clear()
                    await self._arrived.wait()
                    self._check()
        except TimeoutError as timeout:
            if isinstance(timeout, ClientTimeoutError):
                raise
            self._cluster.raise_timeout(f"no position for {state.tp}", self._api_timeout_ms)
        return state.position

    def pause(self, *partitions: TopicPartition) -> None:
        """Hand out nothing of ``partitions`` until they are resumed; positions stay."""
        for state in self._chosen(partitions):
            state.is_paused = True

    def resume(self, *partitions: TopicPartition) -> None:
        """End a pause."""
        for state in self._chosen(partitions):
            state.is_paused = False
        self._arrived.set()
        self._sync()

    def paused(self) -> frozenset[TopicPartition]:
        """The partitions that are paused."""
        return frozenset(tp for tp, state in self._states.items() if state.is_paused)

    def highwater(self, partition: TopicPartition) -> int | None:
        """The high watermark of the last fetch answer: where committed records end (exclusive)."""
        return self._state(partition).high_watermark

    def last_stable_offset(self, partition: TopicPartition) -> int | None:
        """The last stable offset of the last fetch answer: where decided records end (exclusive)."""
        return self._state(partition).last_stable_offset

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
                for tp, state in self._states.items()
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

    def _go_to_committed(self, state: PartitionState, found: OffsetAndMetadata | None) -> None:
        if found is None:
            self._reset_or_fail(state)
            return
        info = self._cluster.metadata.partition(state.tp)
        state.seek(found.offset, found.leader_epoch)
        state.leader_epoch = info.leader_epoch if info is not None else -1
        state.must_validate = 0 <= found.leader_epoch < state.leader_epoch

    async def _auto_commit(self, interval_ms: int) -> None:
        """Commit what was processed, now and again, for ever."""
        assert self._group is not None
        done: dict[TopicPartition, OffsetAndMetadata] = {}
        while True:
            await asyncio.sleep(interval_ms / 1000)
            offsets = self.processed(tuple(self._states))
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

    def _processed_all(self) -> None:
        """The caller is back: what it got before is processed."""
        for state in self._handed_out:
            state.held = None
        self._handed_out.clear()
        self._came_back.set()

    def _begin_read(self) -> None:
        if self._group is not None:
            self._processed_all()
            self._is_reading = True
            self._group.reading()

    def _end_read(self) -> None:
        self._is_reading = False
        self._last_read = self._clock.monotonic()

    def _hand_out(self, state: PartitionState) -> None:
        """What is taken of ``state`` next goes to the caller."""
        if self._group is not None and state.held is None:
            state.held = state.position
            self._handed_out.append(state)

    # What the membership asks of its reader (group.membership.Reader).

    def withhold(self, partitions: Sequence[TopicPartition]) -> None:
        """Hand out nothing more of ``partitions``, which are being revoked."""
        self._current = None
        for tp in partitions:
            if tp in self._states:
                self._states[tp].is_withheld = True

    async def until_processed(self, partitions: Sequence[TopicPartition]) -> None:
        """Wait until the caller is done with what it got of ``partitions``."""
        while any(state.tp in partitions and state.held is not None for state in self._handed_out):
            self._came_back.clear()
            await self._came_back.wait()

    def processed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """How far the caller has come in ``partitions``, where that is known."""
        found = {}
        for tp in partitions:
            state = self._states.get(tp)
            if state is not None and state.held is not None:
                found[tp] = OffsetAndMetadata(state.held)
            elif state is not None and state.position is not None:
                found[tp] = OffsetAndMetadata(state.position, "", state.last_epoch)
        return found

    def own(self, partitions: Sequence[TopicPartition]) -> None:
        """Read ``partitions`` and no others; new ones wait for `begin`."""
        new = [tp for tp in partitions if tp not in self._states]
        self._set_assignment(partitions)
        for tp in new:
            self._states[tp].is_withheld = True
            self._states[tp].wants_committed = False
        self._handed_out = [state for state in self._handed_out if self._states.get(state.tp) is state]

    def begin(self, partitions: Sequence[TopicPartition]) -> None:
        """Read ``partitions`` from where the listener put them, or from where the group is."""
        for tp in partitions:
            state = self._states.get(tp)
            if state is not None:
                state.is_withheld = False
                if state.position is None and state.reset_to is None and state.error is None:
                    state.wants_committed = True
        self._sync()

    def look_again(self) -> None:
        """What kept records back may be over."""
        self._arrived.set()

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

    def raise_at_next_read(self, error: Exception) -> None:
        """Tell the caller of ``error``."""
        self._group_errors.append(error)
        del self._group_errors[:-10]  # Who never reads need not hear more than the last.
        self._arrived.set()

    def time_without_read(self) -> float:
        """For how many seconds the caller has not been reading."""
        return 0.0 if self._is_reading else self._clock.monotonic() - self._last_read

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

    async def getone(self, *partitions: TopicPartition) -> ConsumerRecord:
        """Wait for the next record of ``partitions`` (all assigned by default) and return it.

        Raises what keeps a partition from being read: OffsetOutOfRangeError, NoOffsetForPartitionError,
        LogTruncationError, DeserializationError, CorruptMessageError, TopicAuthorizationFailedError.
        """
        state = self._current
        if (
            state is not None
            and not partitions
            and state.left()
            and not state.is_paused
            and (self._group is None or self._is_group_fine(state))
        ):
            record = state.take_one()  # The short cut: the batch that the last record came from.
            if not state.left():
                self._used_up(state)
            return record
        self._check_read()
        self._begin_read()
        try:
            if self._owes_a_turn:
                self._owes_a_turn = False
                await asyncio.sleep(0)
                self._check_read()
            while True:
                for state in self._chosen(partitions):
                    if self._open(state):
                        self._current = state if not partitions else None
                        self._hand_out(state)
                        record = state.take_one()
                        if not state.left():
                            self._used_up(state)
                        return record
                self._arrived.clear()
                await self._arrived.wait()
                self._check_read()
        finally:
            self._end_read()

    def _is_group_fine(self, state: PartitionState) -> bool:
        """The group's part of the short cut: the record before is processed, this one is the caller's."""
        assert self._group is not None
        now = self._clock.monotonic()
        if self._group_errors or (now >= self._group.lease_until and not self._by_hand):
            return False
        self._last_read = now
        state.held = state.position
        return True

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Return records that are there, or wait up to ``timeout_ms`` for some.

        At most ``max_records`` (`max_poll_records` by default) in all; an empty dict after a time without
        any. Raises as `getone` does, but only when there is nothing to return besides.
        """
        found = await self._poll(partitions, timeout_ms, max_records, PartitionState.take)
        return {tp: _flat(parts) for tp, parts in found.items()}

    async def getcolumns(
        self, *partitions: TopicPartition, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, RecordColumns]:
        """The records that `getmany` would return, as columns: no object is made a record.

        It may be mixed with the other ways to read: they share the position.
        """
        found = await self._poll(partitions, timeout_ms, max_records, PartitionState.take_columns)
        return {tp: RecordColumns.joined(parts) for tp, parts in found.items()}

    async def _poll(
        self,
        partitions: tuple[TopicPartition, ...],
        timeout_ms: float,
        max_records: int | None,
        take: Callable[[PartitionState, int], PartT],
    ) -> dict[TopicPartition, list[PartT]]:
        self._check_read()
        limit = max_records if max_records is not None else self._max_poll_records
        if limit < 1:
            raise ValueError(f"max_records: {limit} is less than 1")
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
                    self._arrived.clear()
                    await self._arrived.wait()
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
        for state in self._chosen(partitions):
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
        if self._group is not None and not self._by_hand and not self._group.is_lease_valid:
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
            self._wake_fetcher(state.tp)
            if state.position is None:
                self._positions.set()

    def _used_up(self, state: PartitionState) -> None:
        """A batch was handed out whole: the next turn is another partition's."""
        self._current = None
        if self._states.get(state.tp) is state:
            del self._states[state.tp]
            self._states[state.tp] = state
        self._owes_a_turn = True
        self._wake_fetcher(state.tp)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ConsumerRecord:
        try:
            return await self.getone()
        except ClientClosedError:
            if self._fault is not None:
                raise
            raise StopAsyncIteration from None

    # --- Fetching ------------------------------------------------------------------------------

    def _metadata_changed(self) -> None:
        if self._topics or self._pattern is not None:
            self._follow_subscription()
        for state in self._states.values():
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
        self._sync()

    def _sync(self) -> None:
        """Something about positions or leaders changed: see to it that there is a loop for each leader."""
        if not self._is_open or not self._background.is_running:
            return
        for tp in self._states:
            node = self._cluster.metadata.leader_of(tp)
            if node is not None and node.node_id not in self._loops:
                self._loops[node.node_id] = asyncio.Event()
                self._background.spawn(self._fetch_loop(node.node_id), f"fetch from {node}")
        for event in self._loops.values():
            event.set()
        self._positions.set()
        self._arrived.set()

    def _wake_fetcher(self, tp: TopicPartition) -> None:
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
                    for tp, state in self._states.items()
                    if (info := metadata.partition(tp)) is not None and info.leader == node_id
                ]
                if node is None or not led:
                    return
                now = self._clock.monotonic()
                wanted, moments, is_one_left_out = [], [], False
                for state in led:
                    if not state.may_fetch:
                        is_one_left_out |= state.wants_data
                    elif state.retry_at > now:
                        moments.append(state.retry_at)
                    else:
                        wanted.append(state)
                if not is_one_left_out:
                    self._left_out_since.pop(node_id, None)
                pause = self._cluster.backs_off_until(node.address)
                if wanted and pause > now:
                    moments.append(pause)
                    wanted = []
                if wanted:
                    max_wait_ms = self._max_wait_ms
                    if is_one_left_out:
                        since = self._left_out_since.setdefault(node_id, now)
                        max_wait_ms = min(max_wait_ms, max(_SHORTEST_POLL_MS, int((now - since) * 1000)))
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
            self._left_out_since.pop(node_id, None)

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
                    partition_max_bytes=self._partition_max_bytes,
                )
            )
        request = FetchRequest(
            max_wait_ms=max_wait_ms,
            min_bytes=self._min_bytes,
            max_bytes=self._max_bytes,
            isolation_level=self._isolation,
            topics=[FetchTopic(topic=name, partitions=parts) for name, parts in topics.items()],
        )
        suspicion = asyncio.get_running_loop().call_later(
            (max_wait_ms + _SLOW_ANSWER_MS) / 1000, self._cluster.request_refresh
        )
        answers: dict[TopicPartition, FetchResponsePartition] = {}
        error: BrokerError = error_for(
            ErrorCode.NETWORK_EXCEPTION, f"{node} did not answer for this partition"
        )
        try:
            answer = await self._cluster.ask(
                node, request, FetchResponse, lane="fetch", timeout_ms=self._request_timeout_ms
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
        except ConnectionFailed as failure:
            error = error_for(ErrorCode.NETWORK_EXCEPTION, str(failure))
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
                self._fetch_failed(state, error, (-1, -1), offset)
            elif p.error_code != ErrorCode.NONE:
                hint = (p.current_leader.leader_id, p.current_leader.leader_epoch)
                self._fetch_failed(state, error_for(p.error_code, f"{tp} at broker {node}"), hint, offset)
            else:
                self._fetched(state, p)
        self._arrived.set()

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
            if offset == state.position and self._reset is not None:
                state.reset(self._reset)
                self._positions.set()
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
            state.failures, cluster.retry_backoff_ms, cluster.retry_backoff_max_ms, self._chance
        )
        state.retry_at = now + wait / 1000
        if error.refresh_metadata or error.code == ErrorCode.UNKNOWN_LEADER_EPOCH:
            if leader[0] >= 0 and cluster.metadata.hint_leader(state.tp, *leader):
                state.retry_at = 0.0
                cluster.changed()
            else:
                cluster.request_refresh()

    # --- Finding positions ---------------------------------------------------------------------

    async def _find_positions(self) -> None:
        """See to it that partitions can be read: leaders, positions, and their check; for ever."""
        failures = 0
        while True:
            self._positions.clear()
            resets = {
                tp: state.reset_to
                for tp, state in self._states.items()
                if state.position is None and state.reset_to is not None and state.error is None
            }
            in_group = [state for state in self._states.values() if state.wants_committed]
            checks = [state for state in self._states.values() if state.must_validate]
            is_one_missing = any(self._cluster.metadata.leader_of(tp) is None for tp in self._states) or any(
                topic not in self._cluster.metadata.topics for topic in self._topics
            )
            if not resets and not checks and not in_group and not is_one_missing:
                failures = 0
                await self._positions.wait()
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
                    failures, self._cluster.retry_backoff_ms, self._cluster.retry_backoff_max_ms, self._chance
                )
                await self._pause(wait)

    async def _pause(self, wait_ms: float) -> None:
        """Wait, but not on when something changes (a leader is found, most likely)."""
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await self._positions.wait()
        except TimeoutError:
            pass  # That is what the time is for.

    async def _look_up_committed(self, states: list[PartitionState]) -> bool:
        """Ask where the group is; tell whether there was an answer."""
        assert self._group is not None
        try:
            found = await self._group.coordinator.committed([state.tp for state in states])
        except BrokerError as error:
            if error.retriable or error.code in TRY_AGAIN:
                return False
            for state in states:
                if state.wants_committed:
                    state.wants_committed = False
                    state.error = error
            self._arrived.set()
            return True
        for state in states:
            if state.wants_committed and self._states.get(state.tp) is state:
                self._go_to_committed(state, found.get(state.tp))
        self._positions.set()  # Those without an offset are looked up now.
        self._sync()
        return True

    async def _look_up(self, resets: dict[TopicPartition, int]) -> bool:
        """Ask for log start and end offsets; tell whether all were found."""
        states = {tp: self._states[tp] for tp in resets}
        try:
            groups, _ = by_leader(self._cluster, resets)
        except BrokerError as error:
            for state in states.values():
                if self._cluster.metadata.topic_errors.get(state.tp.topic) == error.code:
                    state.error = error
            self._arrived.set()
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
                        self._wake_fetcher(tp)
        self._arrived.set()
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
            assert info is not None
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
            self._arrived.set()
            return True
        assert state.position is not None
        is_unknown = answer.end_offset < 0 or answer.leader_epoch < 0
        if not is_unknown and answer.end_offset >= state.position:
            state.must_validate = False
        elif self._reset is not None:
            if is_unknown:
                state.reset(self._reset)
                self._positions.set()
            else:
                state.seek(answer.end_offset, answer.leader_epoch)
        else:
            divergent = None if is_unknown else answer.end_offset
            error_seen = LogTruncationError(state.tp, state.position, divergent)
            state.must_validate = False
            state.error = error_seen
            self._arrived.set()
        state.leader_epoch = epoch
        self._wake_fetcher(state.tp)
        return True


def _flat(parts: list[list[ConsumerRecord]]) -> list[ConsumerRecord]:
    return parts[0] if len(parts) == 1 else list(chain.from_iterable(parts))


def _offset_and_metadata(given: int | tuple[int, str] | OffsetAndMetadata) -> OffsetAndMetadata:
    found = OffsetAndMetadata(given) if isinstance(given, int) else OffsetAndMetadata(*given)
    if found.offset < 0:
        raise ValueError(f"offset: {found.offset} is negative")
    return found
