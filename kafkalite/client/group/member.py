"""A group member's part of the rebalance protocol: what to do next, and what the answers mean. Pure.

The machine is asked for the next step (:meth:`Member.step`) and told of events (the other methods). Steps are
carried out one at a time; heartbeats go on beside them, and their answers may come between any two.

======== =====================================================================================
Phase    What it means
======== =====================================================================================
OUTSIDE  not in the present generation: joins next
JOINING  has asked to join, and waits until all have
DIVIDING leads the group: is to divide the partitions among the members
SYNCING  has handed in the assignment, or waits for it
ADOPTING has its assignment: gives up what is not in it, then takes what is new
STABLE   owns its partitions; joins again where there is a reason to
AWAY     does not want to be a member: not subscribed, or the caller has not read for too long
======== =====================================================================================

Eager protocols give up everything before they join. The cooperative one joins with what it owns and gives up
what the assignment takes away, after which it joins once more, so that others get that.

An answer counts only while it is waited for: whoever was reset meanwhile (its member id is unknown, its
generation is over, it went away) hears nothing more of the generation before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from kafkalite.client.assignors import COOPERATIVE, EAGER, Assignor, Racks
from kafkalite.common import TopicPartition
from kafkalite.protocol.consumer_protocol import (
    PROTOCOL_TYPE,
    Assignment,
    MalformedConsumerProtocol,
    Subscription,
)
from kafkalite.protocol.errors import BrokerError, ErrorCode, error_for
from kafkalite.protocol.heartbeat import HeartbeatRequest
from kafkalite.protocol.join_group import JoinGroupProtocol, JoinGroupRequest, JoinGroupResponse
from kafkalite.protocol.leave_group import LeaveGroupMember, LeaveGroupRequest
from kafkalite.protocol.sync_group import SyncGroupAssignment, SyncGroupRequest, SyncGroupResponse

NO_GENERATION: Final = -1
NO_MEMBER_ID: Final = ""


class Phase(Enum):
    """Where a member stands; see the module."""

    AWAY = "away"
    OUTSIDE = "outside"
    JOINING = "joining"
    DIVIDING = "dividing"
    SYNCING = "syncing"
    ADOPTING = "adopting"
    STABLE = "stable"


ANY: Final = frozenset(Phase)
VALID_PREVIOUS: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.AWAY: ANY,
    Phase.OUTSIDE: ANY,
    Phase.JOINING: frozenset({Phase.OUTSIDE, Phase.STABLE}),
    Phase.DIVIDING: frozenset({Phase.JOINING}),
    Phase.SYNCING: frozenset({Phase.JOINING, Phase.DIVIDING}),
    Phase.ADOPTING: frozenset({Phase.SYNCING}),
    Phase.STABLE: frozenset({Phase.ADOPTING}),
}


# --- Steps -------------------------------------------------------------------------------------


class Rest(msgspec.Struct, frozen=True):
    """There is nothing to do until something happens."""


class BackOff(msgspec.Struct, frozen=True):
    """Wait before the next step: so many attempts in a row have failed."""

    failures: int


class Join(msgspec.Struct, frozen=True):
    """Send this; then :meth:`Member.joined` or :meth:`Member.failed`."""

    request: JoinGroupRequest


class Divide(msgspec.Struct, frozen=True):
    """Find out how many partitions these topics have; then :meth:`Member.divide`."""

    topics: tuple[str, ...]


class Sync(msgspec.Struct, frozen=True):
    """Send this; then :meth:`Member.synced` or :meth:`Member.failed`."""

    request: SyncGroupRequest


class Revoke(msgspec.Struct, frozen=True):
    """Let go of these in good order; then :meth:`Member.revoked`."""

    partitions: tuple[TopicPartition, ...]


class Lose(msgspec.Struct, frozen=True):
    """These are gone; then :meth:`Member.lost`."""

    partitions: tuple[TopicPartition, ...]


class Adopt(msgspec.Struct, frozen=True):
    """Own exactly these from now on; ``added`` are the new ones among them."""

    partitions: tuple[TopicPartition, ...]
    added: tuple[TopicPartition, ...]


class Fail(msgspec.Struct, frozen=True):
    """Tell the caller; then :meth:`Member.told`."""

    error: BrokerError


Step: TypeAlias = Rest | BackOff | Join | Divide | Sync | Revoke | Lose | Adopt | Fail


class Identity(msgspec.Struct, frozen=True):
    """Who speaks: what requests of a member carry."""

    generation_id: int
    member_id: str


RETRY: Final = frozenset(
    {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.REBALANCE_IN_PROGRESS,
        ErrorCode.REQUEST_TIMED_OUT,
    }
)


class Member:
    """One member of one group."""

    def __init__(
        self,
        *,
        group_id: str,
        group_instance_id: str | None,
        session_timeout_ms: int,
        rebalance_timeout_ms: int,
        assignors: Sequence[Assignor],
        client_rack: str | None = None,
    ) -> None:
        """The assignors in order of preference; all members must have one in common."""
        assert assignors
        self._group_id = group_id
        self._instance_id = group_instance_id
        self._session_timeout_ms = session_timeout_ms
        self._rebalance_timeout_ms = rebalance_timeout_ms
        self._client_rack = client_rack
        self._assignors = {assignor.name: assignor for assignor in assignors}
        self.rebalance_protocol = (
            COOPERATIVE if all(a.rebalance_protocol == COOPERATIVE for a in assignors) else EAGER
        )
        """Cooperative only if every assignor is: any of them may be chosen."""
        self.phase = Phase.AWAY
        self.generation_id = NO_GENERATION
        self.member_id = NO_MEMBER_ID
        self.protocol_name: str | None = None
        self.is_leader = False
        self.owned: tuple[TopicPartition, ...] = ()
        """What it may read."""
        self.tenures: dict[TopicPartition, int] = {}
        """A number for the time since it has owned each partition: another one where it was without it in
        between."""
        self._adoptions = 0
        self.topics: tuple[str, ...] = ()
        """What it wants, sorted."""
        self._rejoin: str | None = None
        """Why it is to join again."""
        self._reason = "joins for the first time"
        """What it said when it last joined: an attempt that comes to nothing does not change why."""
        self._failures = 0
        self._must_back_off = False
        self._lost: tuple[TopicPartition, ...] = ()
        self._fault: BrokerError | None = None
        self._skip_assignment = False
        self._members: dict[str, Subscription] = {}
        self._instances: dict[str, str] = {}
        """What all members said, for the leader."""
        self._counted: dict[str, int] | None = None
        """The partitions that the leader last divided."""
        self._racks: Racks = {}
        """In which racks their replicas were, if a member had told its own."""
        self._assignments: list[SyncGroupAssignment] = []
        self._assigned: tuple[TopicPartition, ...] = ()
        self._last: tuple[tuple[TopicPartition, ...], int] = ((), NO_GENERATION)
        """The last assignment and its generation: what the sticky assignor remembers."""

    # --- What to do ----------------------------------------------------------------------------

    def step(self) -> Step:
        """The next thing to do. Joining, synchronising and adopting count as begun by that."""
        if self._lost:
            return Lose(self._lost)
        if self._fault is not None:
            return Fail(self._fault)
        match self.phase:
            case Phase.OUTSIDE:
                return self._step_to_join()
            case Phase.STABLE if self._rejoin is not None:
                return self._step_to_join()
            case Phase.DIVIDING:
                return Divide(self.group_topics)
            case Phase.SYNCING:
                return Sync(self._sync_request())
            case Phase.ADOPTING:
                gone = tuple(tp for tp in self.owned if tp not in self._assigned)
                if gone:
                    return Revoke(gone)
                added = tuple(tp for tp in self._assigned if tp not in self.owned)
                self.owned = self._assigned
                self._adoptions += 1
                self.tenures = {tp: self.tenures.get(tp, self._adoptions) for tp in self.owned}
                self._to(Phase.STABLE)
                return Adopt(self.owned, added)
            case _:
                return Rest()

    def _step_to_join(self) -> Step:
        if self.rebalance_protocol == EAGER:
            gone = self.owned
        else:
            gone = tuple(tp for tp in self.owned if tp.topic not in self.topics)
        if gone:
            return Revoke(gone)
        if self._must_back_off:
            self._must_back_off = False
            return BackOff(self._failures)
        request = JoinGroupRequest(
            group_id=self._group_id,
            session_timeout_ms=self._session_timeout_ms,
            rebalance_timeout_ms=self._rebalance_timeout_ms,
            member_id=self.member_id,
            group_instance_id=self._instance_id,
            protocol_type=PROTOCOL_TYPE,
            protocols=[
                JoinGroupProtocol(name=assignor.name, metadata=self._subscription(assignor).encode())
                for assignor in self._assignors.values()
            ],
            reason=(self._rejoin or self._reason)[:255],
        )
        self._reason = self._rejoin or self._reason
        self._rejoin = None
        self._to(Phase.JOINING)
        return Join(request)

    def _subscription(self, assignor: Assignor) -> Subscription:
        return Subscription(
            self.topics,
            assignor.user_data(*self._last),
            tuple(sorted(self.owned)),
            self.generation_id,
            self._client_rack,
        )

    def _sync_request(self) -> SyncGroupRequest:
        return SyncGroupRequest(
            group_id=self._group_id,
            generation_id=self.generation_id,
            member_id=self.member_id,
            group_instance_id=self._instance_id,
            protocol_type=PROTOCOL_TYPE,
            protocol_name=self.protocol_name,
            assignments=self._assignments,
        )

    @property
    def identity(self) -> Identity:
        """What commits carry at the moment."""
        return Identity(self.generation_id, self.member_id)

    @property
    def needs_heartbeat(self) -> bool:
        """Whether the coordinator waits for a sign of life; while it joins, it does not."""
        return self.generation_id >= 0 and self.phase in (
            Phase.STABLE,
            Phase.ADOPTING,
            Phase.SYNCING,
            Phase.DIVIDING,
        )

    @property
    def is_settled(self) -> bool:
        """Whether it owns its partitions and has no reason to join again."""
        return self.phase is Phase.STABLE and self._rejoin is None and not self._lost

    @property
    def group_topics(self) -> tuple[str, ...]:
        """What any member wants, for the leader."""
        return tuple(sorted({topic for known in self._members.values() for topic in known.topics}))

    @property
    def group_has_racks(self) -> bool:
        """Whether any member told its rack, for the leader."""
        return any(known.rack_id for known in self._members.values())

    def heartbeat_request(self) -> HeartbeatRequest:
        """The sign of life."""
        return HeartbeatRequest(
            group_id=self._group_id,
            generation_id=self.generation_id,
            member_id=self.member_id,
            group_instance_id=self._instance_id,
        )

    def leave_request(self, reason: str) -> LeaveGroupRequest | None:
        """What takes leave; None where there is nothing to leave, and for static members, who come again."""
        if self.member_id == NO_MEMBER_ID or self._instance_id is not None:
            return None
        return LeaveGroupRequest(
            group_id=self._group_id,
            members=[LeaveGroupMember(member_id=self.member_id, reason=reason[:255])],
        )

    # --- What the caller wants -----------------------------------------------------------------

    def subscribe(self, topics: Iterable[str]) -> None:
        """Want ``topics`` from now on, perhaps none for now; joins (again) where that is news."""
        wanted = tuple(sorted(topics))
        if self.phase is Phase.AWAY:
            self.topics = wanted
            self._to(Phase.OUTSIDE)
        elif wanted != self.topics:
            self.topics = wanted
            self._rejoin = "its subscription has changed"

    def rejoin(self, reason: str) -> None:
        """Join again."""
        if self._rejoin is None:
            self._rejoin = reason

    def go_away(self) -> None:
        """Be no member any more: what is owned is lost. :meth:`subscribe` comes back."""
        self._reset(forget_member_id=True)
        self._to(Phase.AWAY)

    def partitions_counted(self, counts: Mapping[str, int], racks: Racks) -> None:
        """Metadata came: the leader has the group rebalance where its topics have other partitions now.

        ``racks`` as in :meth:`divide`; replicas that moved to other racks count, too.
        """
        if not self.is_leader or self._counted is None or self.phase is not Phase.STABLE:
            return
        for topic, before in self._counted.items():
            now = counts.get(topic)
            if now is not None and now != before:
                self.rejoin(f"topic {topic} has {now} partitions, not {before} as when they were divided")
        for tp, racks_before in self._racks.items():
            if racks.get(tp, racks_before) != racks_before:
                self.rejoin(f"replicas of {tp} are in other racks than when it was given to a member")

    # --- What has happened ---------------------------------------------------------------------

    def joined(self, answer: JoinGroupResponse) -> None:
        """The answer to :class:`Join`."""
        if self.phase is not Phase.JOINING:
            return
        code = answer.error_code
        if code == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = answer.member_id
            self._to(Phase.OUTSIDE)
            return
        if code != ErrorCode.NONE:
            self._join_refused(code)
            return
        self._failures = 0
        self.generation_id = answer.generation_id
        self.member_id = answer.member_id
        self.protocol_name = answer.protocol_name
        self.is_leader = answer.leader == answer.member_id
        self._assignments = []
        self._members = {}
        self._counted = None
        if not self.is_leader:
            self._to(Phase.SYNCING)
            return
        try:
            self._members = {m.member_id: Subscription.decode(m.metadata) for m in answer.members}
        except MalformedConsumerProtocol as error:
            self._fail(
                error_for(
                    ErrorCode.INCONSISTENT_GROUP_PROTOCOL, f"another member of {self._group_id}: {error}"
                )
            )
            return
        self._instances = {
            m.member_id: m.group_instance_id for m in answer.members if m.group_instance_id is not None
        }
        self._skip_assignment = answer.skip_assignment
        self._to(Phase.DIVIDING)

    def divide(self, counts: Mapping[str, int], racks: Racks) -> None:
        """The partitions of :class:`Divide`'s topics; topics that do not exist are left out.

        ``racks`` are those of their replicas; they matter only where :attr:`group_has_racks`.
        """
        if self.phase is not Phase.DIVIDING:
            return
        self._counted = {topic: counts.get(topic, 0) for topic in self.group_topics}
        self._racks = racks
        assignor = self._assignors.get(self.protocol_name or "")
        if assignor is None:
            self._fail(
                error_for(
                    ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
                    f"the coordinator chose {self.protocol_name!r}, which this member did not offer",
                )
            )
            return
        if not self._skip_assignment:
            divided = assignor.assign(counts, self._members, self._instances, racks)
            self._assignments = [
                SyncGroupAssignment(member_id=member, assignment=Assignment(tuple(sorted(mine))).encode())
                for member, mine in divided.items()
            ]
        self._to(Phase.SYNCING)

    def synced(self, answer: SyncGroupResponse) -> None:
        """The answer to :class:`Sync`."""
        if self.phase is not Phase.SYNCING:
            return
        code = answer.error_code
        if code != ErrorCode.NONE:
            self._join_refused(code)
            return
        try:
            assigned = tuple(sorted(Assignment.decode(answer.assignment).partitions))
        except MalformedConsumerProtocol as error:
            self._fail(error_for(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, f"the assignment: {error}"))
            return
        self._failures = 0
        self._last = (assigned, self.generation_id)
        unwanted = [tp for tp in assigned if tp.topic not in self.topics]
        if unwanted:
            # It changed its mind while the group came together: its next subscription tells the leader.
            assigned = tuple(tp for tp in assigned if tp.topic in self.topics)
            self.rejoin("its subscription changed during the rebalance")
        gone = [tp for tp in self.owned if tp not in assigned]
        if gone:
            self.rejoin(f"gives up {len(gone)} partitions that others are to get: {_some(gone)}")
        self._assigned = assigned
        self._to(Phase.ADOPTING)

    def failed(self) -> None:
        """No answer came, or nothing that helps: join anew, a little later."""
        if self.phase in (Phase.JOINING, Phase.SYNCING):
            self._again("the coordinator did not answer")

    def _join_refused(self, code: int) -> None:
        match code:
            case _ if code in RETRY:
                self._again(f"the coordinator answered {ErrorCode(code).name}")
            case ErrorCode.UNKNOWN_MEMBER_ID:
                self._reset(forget_member_id=True)
                self._rejoin = "the coordinator did not know it any more"
            case ErrorCode.ILLEGAL_GENERATION:
                self._reset(forget_member_id=False)
                self._rejoin = "the group went on to another generation without it"
            case _:
                self._fail(error_for(code, f"group {self._group_id}"))

    def _again(self, reason: str) -> None:
        self._failures += 1
        self._must_back_off = True
        if self.phase is not Phase.JOINING:
            self.rejoin(reason)
        self._to(Phase.OUTSIDE)

    def heartbeat_answered(self, request: HeartbeatRequest, code: int) -> None:
        """The answer to a heartbeat; it counts only for whom it was sent.

        While the answer to a join is waited for it does not count either: that one knows more.
        """
        if (request.generation_id, request.member_id) != (self.generation_id, self.member_id):
            return
        if self.phase is Phase.JOINING:
            return
        match code:
            case ErrorCode.REBALANCE_IN_PROGRESS:
                if self.phase is Phase.STABLE or self.phase is Phase.ADOPTING:
                    self.rejoin("the group rebalances")
            case ErrorCode.UNKNOWN_MEMBER_ID:
                self._reset(forget_member_id=True)
                self._rejoin = "its session had expired"
            case ErrorCode.ILLEGAL_GENERATION:
                self._reset(forget_member_id=False)
                self._rejoin = "the group went on to another generation without it"
            case ErrorCode.FENCED_INSTANCE_ID:
                self._fail(
                    error_for(
                        code, f"another member of {self._group_id} joined as the instance {self._instance_id}"
                    )
                )
            case ErrorCode.GROUP_AUTHORIZATION_FAILED:
                self._fail(error_for(code, f"group {self._group_id}"))
            case _:
                pass  # All is well, or it is about the coordinator and not about this member.

    def commit_refused(self, identity: Identity, code: int) -> None:
        """A commit as ``identity`` was answered ``code``, which may say something about the membership."""
        request = HeartbeatRequest(
            group_id=self._group_id, generation_id=identity.generation_id, member_id=identity.member_id
        )
        self.heartbeat_answered(request, code)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """:class:`Revoke` is done."""
        self._own(tp for tp in self.owned if tp not in partitions)
        self._lost = tuple(tp for tp in self._lost if tp not in partitions)

    def lost(self) -> None:
        """:class:`Lose` is done."""
        self._own(tp for tp in self.owned if tp not in self._lost)
        self._lost = ()

    def told(self) -> None:
        """The caller knows of :class:`Fail`. Unless it is for good, the next step tries again."""
        assert self._fault is not None
        if self._fault.code != ErrorCode.FENCED_INSTANCE_ID:
            self._fault = None

    # --- Inside --------------------------------------------------------------------------------

    def _own(self, left: Iterable[TopicPartition]) -> None:
        self.owned = tuple(left)
        self.tenures = {tp: self.tenures[tp] for tp in self.owned}

    def _fail(self, error: BrokerError) -> None:
        self._reset(forget_member_id=True)
        self._fault = error
        self._failures += 1
        self._must_back_off = True

    def _reset(self, *, forget_member_id: bool) -> None:
        self.generation_id = NO_GENERATION
        if forget_member_id:
            self.member_id = NO_MEMBER_ID
        self.is_leader = False
        self._members = {}
        self._counted = None
        self._lost = self.owned
        self._to(Phase.OUTSIDE)

    def _to(self, phase: Phase) -> None:
        assert self.phase in VALID_PREVIOUS[phase], f"{self.phase} to {phase}"
        self.phase = phase


def _some(partitions: Sequence[TopicPartition]) -> str:
    names = ", ".join(map(str, partitions[:3]))
    return f"{names}, …" if len(partitions) > 3 else names
