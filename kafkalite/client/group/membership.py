"""Carries out what :class:`~.member.Member` decides: asks the coordinator, calls the listener.

Three tasks. The *steps* go one after the other: join, divide, synchronise, give up, take. The *heartbeats* go
on beside them. The *poll watch* leaves the group when the caller has not read for `max_poll_interval_ms`.

A member that hears nothing from the coordinator for as long as its session lasts may have been replaced
without knowing it (it was paused, or cut off): from then on it hands nothing out until the coordinator has
answered (:attr:`Membership.lease_until`). While it waits in a join it cannot be replaced; it looks meanwhile
whether the coordinator has moved, so that it does not wait for one that is paused or gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import isawaitable
from typing import Final, Protocol, TypeVar, assert_never

import msgspec

from kafkalite.client.assignors import Assignor, Racks
from kafkalite.client.background import Background
from kafkalite.client.cluster import Cluster
from kafkalite.client.errors import ClusterUnreachableError, CommitFailedError
from kafkalite.client.group.coordinator import TRY_AGAIN, Coordinator
from kafkalite.client.group.listener import RebalanceListener
from kafkalite.client.group.member import (
    Adopt,
    BackOff,
    Divide,
    Fail,
    Join,
    Lose,
    Member,
    Phase,
    Rest,
    Revoke,
    Sync,
)
from kafkalite.client.records import OffsetAndMetadata
from kafkalite.common import TopicPartition
from kafkalite.protocol.errors import BrokerError, ErrorCode, error_for
from kafkalite.protocol.heartbeat import HeartbeatResponse
from kafkalite.protocol.join_group import JoinGroupResponse
from kafkalite.protocol.leave_group import LeaveGroupRequest, LeaveGroupResponse
from kafkalite.protocol.message import Message
from kafkalite.protocol.sync_group import SyncGroupResponse
from kafkalite.transport.rpc import RequestRefused

Response = TypeVar("Response", bound=Message)
Offsets = Mapping[TopicPartition, OffsetAndMetadata]

JOIN_GRACE_MS: Final = 5000
"""How much longer than the rebalance timeout the answer to a join is waited for."""
FAREWELL_TIMEOUT_MS: Final = 10_000
"""How long the last commit and the leave of a consumer that stops may take together."""

_MEMBERSHIP_OVER: Final = frozenset({ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION})


class GroupConfig(msgspec.Struct, frozen=True):
    """A member's settings, by Kafka's names."""

    group_id: str
    group_instance_id: str | None
    session_timeout_ms: int
    heartbeat_interval_ms: int
    max_poll_interval_ms: int
    assignors: Sequence[Assignor]
    is_auto_commit: bool
    client_rack: str | None = None


class Reader(Protocol):
    """What reads the partitions: the consumer."""

    def withhold(self, partitions: Sequence[TopicPartition]) -> None:
        """Hand out nothing more of ``partitions``."""
        ...

    async def until_processed(self, partitions: Sequence[TopicPartition]) -> None:
        """Wait until the caller is done with what it got of ``partitions``."""
        ...

    def processed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """How far the caller has come, where that is known."""
        ...

    def own(self, partitions: Sequence[TopicPartition]) -> None:
        """Read these and no others; what is new waits for :meth:`begin`."""
        ...

    def begin(self, partitions: Sequence[TopicPartition]) -> None:
        """Read ``partitions`` from where they are, or from where the group is."""
        ...

    def look_again(self) -> None:
        """What kept records back may be over."""
        ...

    async def count(self, topics: Sequence[str]) -> dict[str, int]:
        """The number of partitions of each topic that exists, by metadata asked for now."""
        ...

    def raise_at_next_read(self, error: Exception) -> None:
        """Tell the caller of ``error``."""
        ...

    def time_without_read(self) -> float:
        """For how many seconds the caller has not been reading; 0 while it waits for records."""
        ...


class Membership:
    """One consumer's membership in its group, between :meth:`start` and :meth:`stop`."""

    def __init__(self, config: GroupConfig, cluster: Cluster, reader: Reader) -> None:
        self._config = config
        self._cluster = cluster
        self._reader = reader
        self._clock = cluster.clock
        self.listener: RebalanceListener | None = None
        self.coordinator = Coordinator(cluster, config.group_id)
        self.member = Member(
            group_id=config.group_id,
            group_instance_id=config.group_instance_id,
            session_timeout_ms=config.session_timeout_ms,
            rebalance_timeout_ms=config.max_poll_interval_ms,
            assignors=config.assignors,
            client_rack=config.client_rack,
        )
        self.lease_until = 0.0
        """The monotonic time until which no other member can have been given what this one owns."""
        self._broker_racks: dict[int, str | None] = {}
        """Kept while a broker is away: that it restarts is no reason for a rebalance."""
        self._wake = asyncio.Event()
        self._given_up = asyncio.Event()
        """An answer that is waited for is of no use any more."""
        self._agreed = asyncio.Event()
        """A generation was agreed on, and commits of it are accepted. What it takes away is still owned then:
        it is given up once the caller is done with it, and the caller may be waiting for a commit."""
        self._committing = asyncio.Lock()
        self._commits_begun = 0
        self._committed_by: dict[TopicPartition, int] = {}
        """Which commit, in the order in which they began, was the last one to be accepted."""
        self._departure: tuple[str, Offsets] | None = None
        self._wanted: tuple[str, ...] | None = None
        self._awaits_read = False
        """It left because the caller did not read; a read brings it back."""
        self._is_calling_listener = False
        self._steps: asyncio.Task[None] | None = None

    # --- Life ----------------------------------------------------------------------------------

    def start(self, background: Background) -> None:
        """Begin: the tasks belong to the consumer."""
        self._steps = background.spawn(self._take_steps(), "membership")
        background.spawn(self._send_heartbeats(), "heartbeats")
        background.spawn(self._watch_polls(), "poll watch")

    async def stop(self) -> None:
        """Commit what was processed (where commits are automatic), revoke, and leave unless static."""
        if self._steps is None:
            return
        self._steps.cancel()
        await asyncio.wait([self._steps])
        self._steps = None
        try:
            async with asyncio.timeout(FAREWELL_TIMEOUT_MS / 1000):
                if self._departure is not None:
                    await self._depart(*self._departure)
                elif self.member.phase is not Phase.AWAY:
                    await self._depart("the consumer was stopped", self._reader.processed(self.member.owned))
        except TimeoutError:
            pass  # Its session will end by itself; what was not committed is read again by another member.

    # --- What the consumer says ----------------------------------------------------------------

    def subscribe(self, topics: Sequence[str]) -> None:
        """Be a member that wants ``topics``."""
        self._wanted = tuple(topics)
        self._wake.set()

    def unsubscribe(self, offsets: Offsets) -> None:
        """Leave, committing ``offsets`` before where commits are automatic."""
        self._wanted = None
        self._awaits_read = False
        self._departure = ("it unsubscribed", offsets)
        self._given_up.set()
        self._wake.set()

    def metadata_changed(self, counts: Mapping[str, int]) -> None:
        """The leader looks whether what was divided has changed."""
        self.member.partitions_counted(counts, self._racks(self.member.group_topics))
        self._wake.set()

    def reading(self) -> None:
        """The caller reads (again)."""
        if self._awaits_read:
            self._awaits_read = False
            self._wake.set()

    @property
    def is_lease_valid(self) -> bool:
        """Whether what is owned can be handed out."""
        return self._clock.monotonic() < self.lease_until

    def rejoin(self, reason: str) -> None:
        """Have the group rebalance."""
        self.member.rejoin(reason)
        self._wake.set()

    # --- Steps ---------------------------------------------------------------------------------

    async def _take_steps(self) -> None:
        while True:
            self._wake.clear()
            self._given_up.clear()
            if self._departure is not None:
                departure, self._departure = self._departure, None
                await self._depart(*departure)
                continue
            if self._wanted is not None and not self._awaits_read:
                self.member.subscribe(self._wanted)
            step = self.member.step()
            match step:
                case Rest():
                    self._agreed.set()
                    await self._wake.wait()
                case BackOff(failures):
                    await self.coordinator.wait(failures)
                case Join(request):
                    wait_ms = self._config.max_poll_interval_ms + JOIN_GRACE_MS
                    answer = await self._ask(request, JoinGroupResponse, wait_ms)
                    if answer is None:
                        self.member.failed()
                    else:
                        self.coordinator.heard(answer.error_code)
                        self.member.joined(answer)
                case Divide(topics):
                    counts = await self._reader.count(topics)
                    self.member.divide(counts, self._racks(topics))
                case Sync(request):
                    wait_ms = self._config.max_poll_interval_ms + JOIN_GRACE_MS
                    synced = await self._ask(request, SyncGroupResponse, wait_ms)
                    if synced is None:
                        self.member.failed()
                    else:
                        self.coordinator.heard(synced.error_code)
                        self.member.synced(synced)
                        if self.member.phase is Phase.ADOPTING:
                            self._agreed.set()
                case Revoke(partitions):
                    await self._revoke(partitions)
                case Lose(partitions):
                    remaining = [tp for tp in self.member.owned if tp not in partitions]
                    self._reader.own(remaining)
                    if self.listener is not None:
                        await self._call(self.listener.on_partitions_lost, partitions)
                    self.member.lost()
                case Adopt(partitions, added):
                    self._reader.own(partitions)
                    if self.listener is not None:
                        await self._call(self.listener.on_partitions_assigned, added)
                    self._reader.begin(added)
                case Fail(error):
                    self.member.told()
                    self._reader.raise_at_next_read(error)
                    if error.code == ErrorCode.FENCED_INSTANCE_ID:
                        self._agreed.set()
                        return
                case _:
                    assert_never(step)

    def _racks(self, topics: Iterable[str]) -> Racks:
        """The racks of the replicas of ``topics``, as far as they are known, where a member told its own."""
        if not self.member.group_has_racks:
            return {}
        metadata = self._cluster.metadata
        self._broker_racks.update((node.node_id, node.rack) for node in metadata.nodes.values())
        known = [metadata.topics[topic] for topic in topics if topic in metadata.topics]
        return {
            TopicPartition(info.name, number): frozenset(
                rack for broker in partition.replicas if (rack := self._broker_racks.get(broker)) is not None
            )
            for info in known
            for number, partition in info.partitions.items()
        }

    async def _ask(self, request: Message, response: type[Response], timeout_ms: int) -> Response | None:
        """Ask what takes as long as the slowest member; None where there is no use in waiting on."""
        limit = max(timeout_ms, self._cluster.request_timeout_ms)
        asking = asyncio.ensure_future(
            self.coordinator.ask(request, response, lane="group", timeout_ms=limit)
        )
        watching = asyncio.ensure_future(self._until_useless())
        try:
            await asyncio.wait([asking, watching], return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return None
            answer = asking.result()
        except BrokerError as error:
            if not error.retriable and error.code not in TRY_AGAIN:
                self._reader.raise_at_next_read(error)
            return None
        finally:
            asking.cancel()
            watching.cancel()
            await asyncio.gather(asking, watching, return_exceptions=True)
        self._renew()
        return answer

    async def _until_useless(self) -> None:
        """Return when the answer is not wanted any more, or another broker coordinates the group now."""
        while True:
            try:
                async with asyncio.timeout(self._config.heartbeat_interval_ms / 1000):
                    await self._given_up.wait()
                return
            except TimeoutError:
                pass  # Time to look.
            try:
                node = await self.coordinator.look_up()
            except (BrokerError, ClusterUnreachableError, RequestRefused):
                continue  # Nobody knows better at the moment.
            self._renew()
            if self.coordinator.node is not None and node != self.coordinator.node:
                self.coordinator.node = node
                return

    def _renew(self) -> None:
        self.lease_until = self._clock.monotonic() + self._config.session_timeout_ms / 1000
        self._reader.look_again()

    async def _revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Let go in good order: what was handed out is finished and committed first."""
        self._reader.withhold(partitions)
        waits = [
            asyncio.ensure_future(self._reader.until_processed(partitions)),
            asyncio.ensure_future(self._given_up.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        still = [tp for tp in partitions if tp in self.member.owned]
        if self.member.generation_id < 0 or self._departure is not None:
            return  # It was thrown out meanwhile and these are lost, or it leaves: another step.
        if self._config.is_auto_commit:
            await self._commit_at_last(self._reader.processed(still))
        if self.listener is not None:
            await self._call(self.listener.on_partitions_revoked, still)
        self.member.revoked(partitions)
        self._reader.own(self.member.owned)

    async def _commit_at_last(self, offsets: Offsets) -> None:
        """Commit before letting go. Where that fails the next owner reads again what was not committed."""
        try:
            await self.commit(offsets, may_wait=False)
        except (CommitFailedError, TimeoutError):
            pass  # Others own them already, or nobody answers: there is no way to commit any more.
        except BrokerError as error:
            if not error.retriable and error.code != ErrorCode.REBALANCE_IN_PROGRESS:
                self._reader.raise_at_next_read(error)

    async def _depart(self, reason: str, offsets: Offsets) -> None:
        member = self.member
        if member.owned and member.generation_id >= 0:
            if self._config.is_auto_commit:
                await self._commit_at_last(offsets)
            if self.listener is not None:
                await self._call(self.listener.on_partitions_revoked, member.owned)
            member.revoked(member.owned)
        request = member.leave_request(reason)
        owned = member.owned
        member.go_away()
        if owned and self.listener is not None:
            await self._call(self.listener.on_partitions_lost, owned)
        member.lost()
        if request is not None:
            await self._leave(request)

    async def _leave(self, request: LeaveGroupRequest) -> None:
        try:
            answer = await self.coordinator.ask(
                request, LeaveGroupResponse, lane="heartbeat", timeout_ms=self._cluster.request_timeout_ms
            )
            self.coordinator.heard(answer.error_code)
        except BrokerError:
            pass  # Its session will end by itself.

    async def _call(
        self, method: Callable[[frozenset[TopicPartition]], object], partitions: Sequence[TopicPartition]
    ) -> None:
        self._is_calling_listener = True
        try:
            result = method(frozenset(partitions))
            if isawaitable(result):
                await result
        except Exception as error:  # Whatever the caller's code raises is the caller's to see.
            self._reader.raise_at_next_read(error)
        finally:
            self._is_calling_listener = False

    # --- Heartbeats and the caller's pace ------------------------------------------------------

    async def _send_heartbeats(self) -> None:
        failures = 0
        config = self._config
        limit = min(self._cluster.request_timeout_ms, max(config.session_timeout_ms // 3, 1000))
        while True:
            if failures:
                await self.coordinator.wait(failures)
            else:
                await asyncio.sleep(config.heartbeat_interval_ms / 1000)
            if not self.member.needs_heartbeat:
                failures = 0
                continue
            request = self.member.heartbeat_request()
            sent = self._clock.monotonic()
            try:
                answer = await self.coordinator.ask(
                    request, HeartbeatResponse, lane="heartbeat", timeout_ms=limit
                )
            except (BrokerError, RequestRefused):
                failures += 1
                continue
            failures = 0
            self.coordinator.heard(answer.error_code)
            if answer.error_code in (ErrorCode.NONE, ErrorCode.REBALANCE_IN_PROGRESS):
                self.lease_until = max(self.lease_until, sent + config.session_timeout_ms / 1000)
                self._reader.look_again()
            else:
                failures = 1
            self.member.heartbeat_answered(request, answer.error_code)
            if self.member.generation_id < 0:
                self._given_up.set()
            self._wake.set()

    async def _watch_polls(self) -> None:
        limit = self._config.max_poll_interval_ms / 1000
        while True:
            idle = self._reader.time_without_read()
            if idle < limit:
                # Rounding may leave less than the clock can tell: that would be a loop without a pause.
                await asyncio.sleep(max(limit - idle, 0.001))
                continue
            if self.member.phase is not Phase.AWAY:
                request = self.member.leave_request(
                    f"it did not read for max_poll_interval_ms ({self._config.max_poll_interval_ms})"
                )
                self.member.go_away()
                self._awaits_read = True
                self._given_up.set()
                self._wake.set()
                if request is not None:
                    await self._leave(request)
            await asyncio.sleep(limit)

    # --- Commits -------------------------------------------------------------------------------

    async def commit(self, offsets: Offsets, *, may_wait: bool = True) -> None:
        """Commit as the member that this is; the caller bounds the time.

        A rebalance under way is waited for where ``may_wait``, else it raises RebalanceInProgressError. What
        is tried again is never committed behind the back of a later commit, nor of another owner: what a
        commit that began later has committed is left as it is.
        Raises CommitFailedError where the partitions are not this member's any more, FencedInstanceIdError,
        and what the coordinator answers that trying again does not help.
        """
        failures = 0
        self._commits_begun += 1
        own_number = self._commits_begun
        tenures = {tp: self.member.tenures.get(tp) for tp in offsets}
        while offsets:
            async with self._committing:
                offsets = {
                    tp: offset for tp, offset in offsets.items() if self._committed_by.get(tp, 0) < own_number
                }
                gone = [tp for tp in offsets if self.member.tenures.get(tp) != tenures[tp]]
                if gone:
                    raise CommitFailedError(
                        f"{', '.join(map(str, gone))} were given up meanwhile: others may have come further"
                    )
                if not offsets:
                    return
                identity = self.member.identity
                if identity.generation_id < 0 and (self._awaits_read or self.member.phase is not Phase.AWAY):
                    raise CommitFailedError(
                        f"group {self._config.group_id} went on without this member: "
                        + ("it did not read in time" if self._awaits_read else "it is joining again")
                    )
                try:
                    codes = await self.coordinator.commit(
                        offsets,
                        generation_id=identity.generation_id,
                        member_id=identity.member_id,
                        group_instance_id=self._config.group_instance_id,
                    )
                except BrokerError as error:
                    if not error.retriable and error.code not in TRY_AGAIN:
                        raise
                    codes = dict.fromkeys(offsets, int(error.code))
                done = [tp for tp, code in codes.items() if code == ErrorCode.NONE]
                self._committed_by.update(dict.fromkeys(done, own_number))
            bad = {tp: ErrorCode(code) for tp, code in codes.items() if code != ErrorCode.NONE}
            if not bad:
                return
            offsets = {tp: offset for tp, offset in offsets.items() if tp in bad}
            tp, code = next(iter(bad.items()))
            if (
                code in _MEMBERSHIP_OVER | {ErrorCode.REBALANCE_IN_PROGRESS}
                and self.member.phase is Phase.JOINING
            ):
                code = ErrorCode.REBALANCE_IN_PROGRESS  # The answer to the join tells what this one means.
            else:
                self.member.commit_refused(identity, code)
            self._wake.set()
            if code in _MEMBERSHIP_OVER:
                raise CommitFailedError(
                    f"group {self._config.group_id} went on without this member ({code.name}): "
                    f"nothing was committed for {', '.join(map(str, bad))}"
                )
            if code == ErrorCode.REBALANCE_IN_PROGRESS:
                if not may_wait or self._is_calling_listener:
                    raise error_for(code, f"group {self._config.group_id} rebalances")
                await self._until_agreed()
                continue
            refusal = error_for(code, f"the commit of {tp} in group {self._config.group_id}")
            if not refusal.retriable and code not in TRY_AGAIN:
                raise refusal
            failures += 1
            await self.coordinator.wait(failures)

    async def _until_agreed(self) -> None:
        self._agreed.clear()
        self._wake.set()
        await self._agreed.wait()
