"""One group: its members, and the generations they form.

A generation begins with a *join phase*: every member sends a join, and waits until all have come
or the time is up; then all are answered at once and the leader knows who is there. Its *sync
phase* follows: the leader hands in the assignment, which is stored before anybody gets it. Then
the group is stable until somebody comes, goes, falls silent or wants something else.

Time is an argument and a deadline a number in the state: :meth:`Group.next_deadline` says when
:meth:`Group.on_time` is to be called. All methods return :class:`Effects`; none raises but where
its docstring says so (errors of the asker are answers here, since joins and syncs wait).

Invariants: a member id is in at most one of ``members`` and ``pending``; ``static`` maps each
instance id to the one member that has it; who waits for a join is a member and the state is
PREPARING_REBALANCE (but for a replaced static member whose new id is being stored); who waits for
a sync is a member and the state is COMPLETING_REBALANCE.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from kafkalite.common import TopicPartition
from kafkalite.coordinator.config import NEW_MEMBER_JOIN_TIMEOUT_MS, GroupConfig
from kafkalite.coordinator.group.effects import Effects, Now, StoreGroup, StorePurpose, Ticket
from kafkalite.coordinator.group.explain import moves, owners
from kafkalite.coordinator.group.offsets import Offsets
from kafkalite.coordinator.group.records import GroupValue, MemberValue
from kafkalite.coordinator.group.state import VALID_PREVIOUS, GroupState
from kafkalite.protocol.consumer_protocol import (
    PROTOCOL_TYPE,
    Assignment,
    MalformedConsumerProtocol,
    Subscription,
)
from kafkalite.protocol.errors import (
    BrokerError,
    CoordinatorNotAvailableError,
    ErrorCode,
    FencedInstanceIdError,
    GroupMaxSizeReachedError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    NotCoordinatorError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from kafkalite.protocol.heartbeat import HeartbeatRequest
from kafkalite.protocol.join_group import JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember
from kafkalite.protocol.leave_group import LeaveGroupMember
from kafkalite.protocol.sync_group import SyncGroupRequest, SyncGroupResponse

NO_GENERATION: Final = -1

_EMPTY, _PREPARING, _COMPLETING, _STABLE, _DEAD = (
    GroupState.EMPTY,
    GroupState.PREPARING_REBALANCE,
    GroupState.COMPLETING_REBALANCE,
    GroupState.STABLE,
    GroupState.DEAD,
)


class Client(msgspec.Struct, frozen=True):
    """Who sent a request, as far as the group is concerned."""

    client_id: str
    host: str


class Member(msgspec.Struct):
    """One member."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    """How long the others wait for it to join again."""
    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    """What it supports, the preferred first, with its metadata for each."""
    assignment: bytes = b""
    """Of the generation that is stored; empty from the beginning of a sync phase to its end."""
    deadline_ms: int = 0
    """When its session, or the patience with its first join, ends. Not looked at while it waits."""
    join_ticket: Ticket | None = None
    sync_ticket: Ticket | None = None
    is_new: bool = True
    """It never completed a join here."""

    @property
    def owner(self) -> str:
        """Its name for people, which a restart of a static member does not change."""
        return self.member_id if self.group_instance_id is None else self.group_instance_id

    @property
    def is_waiting(self) -> bool:
        """Whether a request of its own waits: then silence is not its fault."""
        return (self.join_ticket is not None and not self.is_new) or self.sync_ticket is not None

    def metadata(self, protocol: str | None) -> bytes:
        """What it gave with ``protocol``; empty where it does not support it."""
        return next((metadata for name, metadata in self.protocols if name == protocol), b"")


class Group(msgspec.Struct):
    """See the module."""

    group_id: str
    config: GroupConfig
    state: GroupState = GroupState.EMPTY
    generation_id: int = 0
    protocol_type: str | None = None
    protocol: str | None = None
    """The protocol chosen for this generation."""
    leader: str | None = None
    """The member id of who makes the assignment: the first that came, until it goes."""
    members: dict[str, Member] = msgspec.field(default_factory=dict)
    static: dict[str, str] = msgspec.field(default_factory=dict)
    """Instance id to member id."""
    pending: dict[str, int] = msgspec.field(default_factory=dict)
    """Member ids that were given out and have not come back yet, with the end of their time."""
    unsynced: dict[str, None] = msgspec.field(default_factory=dict)
    """Members of this generation that have not asked for their assignment."""
    state_timestamp_ms: int = -1
    """When the state was entered, in wall time; -1 where nobody knows."""
    join_deadline_ms: int | None = None
    """When the join phase ends without those who are missing."""
    sync_deadline_ms: int | None = None
    """When members that have not synced are removed."""
    initial_remaining_ms: int | None = None
    """In the first join phase of an empty group: how much longer it may be drawn out."""
    has_new_arrivals: bool = False
    """Whether somebody came since the present delay of such a phase began."""
    offsets: Offsets = msgspec.field(default_factory=Offsets)
    stored: GroupValue | None = None
    """The group's record, as far as it is committed."""
    rebalance_began_ms: int | None = None
    """When the join phase of the generation in the making began, in monotonic time."""
    rebalance_reason: str = ""
    owners_before: Mapping[TopicPartition, str] | None = None
    """Who owned what in the last completed generation, for people."""
    is_storing: bool = False
    """Whether this generation's assignment is being stored: a repeated sync must not store another."""

    # ---- loading and unloading ----

    def restore(self, value: GroupValue, now: Now) -> None:
        """Take up the generation that ``value`` stored; its members' sessions begin anew."""
        assert self.state is _EMPTY, "only a fresh group is restored"
        self.generation_id = value.generation_id
        self.protocol_type = value.protocol_type or None
        self.protocol = value.protocol
        self.leader = value.leader
        self.state_timestamp_ms = value.state_timestamp_ms
        for stored in value.members:
            member = Member(
                stored.member_id,
                stored.group_instance_id,
                stored.client_id,
                stored.client_host,
                stored.rebalance_timeout_ms,
                stored.session_timeout_ms,
                ((value.protocol or "", stored.subscription),),
                stored.assignment,
                is_new=False,
            )
            self._add(member)
            self._touch(member, now)
        if self.members:
            # Not a move: the stored generation is where this group begins.
            self.state = _STABLE
            self.owners_before = owners(self.protocol_type, self._assignments())

    def unload(self) -> Effects:
        """This broker coordinates the group no more: who waits is to look for the new coordinator."""
        effects = Effects()
        error = NotCoordinatorError(f"group {self.group_id} is coordinated elsewhere now")
        for member in self.members.values():
            self._answer_join_error(effects, member, error)
            self._answer_sync_error(effects, member, error)
        self._enter(_DEAD, None)
        return effects

    def remove(self) -> None:
        """The group was deleted (it has no members)."""
        assert not self.members, "a group with members is not deleted"
        self._enter(_DEAD, None)

    # ---- deadlines ----

    def next_deadline(self) -> int | None:
        """The earliest time at which :meth:`on_time` has something to do; None for never."""
        return min(self._deadlines(), default=None)

    def _deadlines(self) -> Iterator[int]:
        if self.join_deadline_ms is not None:
            yield self.join_deadline_ms
        if self.sync_deadline_ms is not None:
            yield self.sync_deadline_ms
        yield from self.pending.values()
        for member in self.members.values():
            if not member.is_waiting:
                yield member.deadline_ms

    def on_time(self, now: Now) -> Effects:
        """Do what is due."""
        effects = Effects()
        for member_id, deadline in list(self.pending.items()):
            if deadline <= now.monotonic_ms:
                del self.pending[member_id]
                effects.note(
                    "GroupMemberExpired", group=self.group_id, member=member_id, reason="it never joined"
                )
                self._try_complete_join(effects, now)
        for member in list(self.members.values()):
            is_here = self.members.get(member.member_id) is member
            if is_here and not member.is_waiting and member.deadline_ms <= now.monotonic_ms:
                self._expire(effects, member, now)
        if self.sync_deadline_ms is not None and self.sync_deadline_ms <= now.monotonic_ms:
            self._expire_unsynced(effects, now)
        if self.join_deadline_ms is not None and self.join_deadline_ms <= now.monotonic_ms:
            self._join_time_is_up(effects, now)
        return effects

    def _expire(self, effects: Effects, member: Member, now: Now) -> None:
        limit = NEW_MEMBER_JOIN_TIMEOUT_MS if member.is_new else member.session_timeout_ms
        reason = f"no sign of life for {limit} ms"
        effects.note("GroupMemberExpired", **self._member_facts(member), reason=reason)
        self._remove_and_go_on(effects, member, f"the session of {member.owner} expired", now)

    def _expire_unsynced(self, effects: Effects, now: Now) -> None:
        self.sync_deadline_ms = None
        silent = [self.members[member_id] for member_id in self.unsynced if member_id in self.members]
        self.unsynced.clear()
        if not silent:
            return
        for member in silent:
            effects.note(
                "GroupMemberExpired", **self._member_facts(member), reason="it joined and did not sync"
            )
            self._drop(effects, member)
        names = ", ".join(member.owner for member in silent)
        self._prepare_rebalance(effects, f"{names} joined and did not sync", now)

    # ---- join ----

    def join(
        self, request: JoinGroupRequest, client: Client, *, fresh_id: str, ticket: Ticket, now: Now
    ) -> Effects:
        """Let a member in, or back in. ``fresh_id`` is unique, for a new member id.

        The session timeout is in its range, which is the shard's check.
        """
        effects = Effects()
        try:
            self._join(effects, request, client, fresh_id, ticket, now)
        except BrokerError as error:
            effects.answers.append((ticket, join_error(error, request.member_id)))
        return effects

    def _join(
        self,
        effects: Effects,
        request: JoinGroupRequest,
        client: Client,
        fresh_id: str,
        ticket: Ticket,
        now: Now,
    ) -> None:
        if self.state is _DEAD:
            raise CoordinatorNotAvailableError(f"group {self.group_id} is being removed")
        protocols = tuple((protocol.name, protocol.metadata) for protocol in request.protocols)
        if not self._has_room(request.member_id):
            self._refuse_for_size(effects, request.member_id, now)
        if not self._supports(request.protocol_type, protocols):
            raise InconsistentGroupProtocolError(
                f"group {self.group_id}: protocol type {request.protocol_type!r} with "
                f"{', '.join(name for name, _ in protocols) or 'no protocols'}; the members have "
                f"{self.protocol_type!r} with {', '.join(sorted(self._common_protocols())) or 'none'}"
            )
        instance_id = request.group_instance_id
        if not request.member_id:
            if instance_id is None:
                self._give_member_id(effects, request, client, fresh_id, ticket, now)
                return
            member = self._new_member(f"{instance_id}-{fresh_id}", request, client, protocols)
            if instance_id in self.static:
                self._replace_static(effects, member, ticket, now)
            else:
                self._let_in(effects, member, request, ticket, now)
            return
        if request.member_id in self.pending:
            if instance_id is not None:
                raise UnknownMemberIdError(
                    f"{request.member_id} was given to a member without an instance id"
                )
            del self.pending[request.member_id]
            member = self._new_member(request.member_id, request, client, protocols)
            self._let_in(effects, member, request, ticket, now)
            return
        member = self._member(request.member_id, instance_id)
        self._rejoin(effects, member, request, client, protocols, ticket, now)

    def _has_room(self, member_id: str) -> bool:
        if self.state is _PREPARING:
            member = self.members.get(member_id)
            if member is not None and member.join_ticket is not None:
                return True
            waiting = sum(1 for one in self.members.values() if one.join_ticket is not None)
            return waiting < self.config.group_max_size
        if self.state is _EMPTY:
            return True
        return member_id in self.members or len(self.members) < self.config.group_max_size

    def _refuse_for_size(self, effects: Effects, member_id: str, now: Now) -> None:
        reason = f"the group has group.max.size={self.config.group_max_size} members"
        self.pending.pop(member_id, None)
        member = self.members.get(member_id)
        if member is not None:
            effects.note("GroupMemberLeft", **self._member_facts(member), reason=reason)
            self._drop(effects, member)
            self._try_complete_join(effects, now)
        raise GroupMaxSizeReachedError(f"{self.group_id}: {reason}")

    def _supports(self, protocol_type: str, protocols: tuple[tuple[str, bytes], ...]) -> bool:
        if not protocol_type or not protocols:
            return False
        if not self.members:
            return True
        common = self._common_protocols()
        return protocol_type == self.protocol_type and any(name in common for name, _ in protocols)

    def _common_protocols(self) -> frozenset[str]:
        """The protocols that every member supports."""
        counts = Counter(name for member in self.members.values() for name in dict(member.protocols))
        return frozenset(name for name, count in counts.items() if count == len(self.members))

    def _give_member_id(
        self,
        effects: Effects,
        request: JoinGroupRequest,
        client: Client,
        fresh_id: str,
        ticket: Ticket,
        now: Now,
    ) -> None:
        """A first join only gets a name: a client whose answer is lost must not leave a member behind."""
        member_id = f"{client.client_id}-{fresh_id}"
        self.pending[member_id] = now.monotonic_ms + request.session_timeout_ms
        answer = JoinGroupResponse(
            error_code=ErrorCode.MEMBER_ID_REQUIRED, leader="", member_id=member_id, members=[]
        )
        effects.answers.append((ticket, answer))

    def _new_member(
        self,
        member_id: str,
        request: JoinGroupRequest,
        client: Client,
        protocols: tuple[tuple[str, bytes], ...],
    ) -> Member:
        return Member(
            member_id,
            request.group_instance_id,
            client.client_id,
            client.host,
            _rebalance_timeout(request),
            request.session_timeout_ms,
            protocols,
        )

    def _let_in(
        self, effects: Effects, member: Member, request: JoinGroupRequest, ticket: Ticket, now: Now
    ) -> None:
        if self.state is _PREPARING and self.initial_remaining_ms is not None:
            self.has_new_arrivals = True
        if not self.members:
            self.protocol_type = request.protocol_type
        self._add(member)
        member.join_ticket = ticket
        member.deadline_ms = now.monotonic_ms + NEW_MEMBER_JOIN_TIMEOUT_MS
        effects.note("GroupMemberJoined", **self._member_facts(member), reason=request.reason or "")
        self._rebalance(effects, f"{member.owner} joined" + _because(request.reason), now)

    def _rejoin(
        self,
        effects: Effects,
        member: Member,
        request: JoinGroupRequest,
        client: Client,
        protocols: tuple[tuple[str, bytes], ...],
        ticket: Ticket,
        now: Now,
    ) -> None:
        is_changed = protocols != member.protocols
        is_leader = member.member_id == self.leader
        if (self.state is _COMPLETING and not is_changed) or (
            self.state is _STABLE and not is_changed and not is_leader
        ):
            # Its answer was lost: it gets the present generation once more.
            effects.answers.append((ticket, self._joined(member, with_members=is_leader)))
            self._touch(member, now)
            return
        why = (
            "changed what it wants"
            if is_changed
            else "asks for a new assignment"
            if is_leader
            else "rejoined"
        )
        self._answer_join_error(effects, member, RebalanceInProgressError("a later join took its place"))
        member.protocols = protocols
        member.rebalance_timeout_ms = _rebalance_timeout(request)
        member.session_timeout_ms = request.session_timeout_ms
        member.client_id, member.client_host = client.client_id, client.host
        # Its sync, if one waits, is answered by the rebalance that begins now, as a member's that
        # did not join: so the join is noted afterwards, where a rebalance begins.
        if self.state is not _PREPARING:
            self._reset(effects, f"{member.owner} {why}" + _because(request.reason), now)
        member.join_ticket = ticket
        self._try_complete_join(effects, now)

    def _replace_static(self, effects: Effects, member: Member, ticket: Ticket, now: Now) -> None:
        """A restarted static member takes its old place under a new member id."""
        assert member.group_instance_id is not None
        old = self.members[self.static[member.group_instance_id]]
        fenced = FencedInstanceIdError(f"{old.group_instance_id} has come back as {member.member_id}")
        self._answer_join_error(effects, old, fenced)
        self._answer_sync_error(effects, old, fenced)
        member.assignment = old.assignment
        member.is_new = False
        # In its predecessor's place in the order of members: assignors see the same order as before.
        self.members = {
            (member.member_id if key == old.member_id else key): (member if key == old.member_id else value)
            for key, value in self.members.items()
        }
        self.static[member.group_instance_id] = member.member_id
        if self.unsynced.pop(old.member_id, "") is None:
            self.unsynced[member.member_id] = None
        if self.leader == old.member_id:
            self.leader = member.member_id
        effects.note(
            "GroupMemberReplaced",
            **self._member_facts(member),
            replaced=old.member_id,
            reason="the static member came back",
        )
        self._touch(member, now)
        reason = f"the static member {member.owner} came back"
        if self.state is _STABLE:
            if self._select_protocol() != self.protocol:
                reason += " with other protocols"
            elif self.protocol_type == PROTOCOL_TYPE and _owes_a_rejoin(old, self.protocol):
                reason += " before others could get what it had given up"
            else:
                member.join_ticket = ticket
                effects.stores.append(
                    StoreGroup(
                        self.group_id,
                        self._value({one.member_id: one.assignment for one in self.members.values()}),
                        StorePurpose.REPLACED_MEMBER,
                        member.member_id,
                    )
                )
                return
        if self.state is not _PREPARING:
            self._reset(effects, reason, now)
        member.join_ticket = ticket
        self._try_complete_join(effects, now)

    # ---- the join phase ----

    def _rebalance(self, effects: Effects, reason: str, now: Now) -> None:
        """Begin a join phase; where one goes on already, see whether it is complete now."""
        if self.state is _PREPARING:
            self._try_complete_join(effects, now)
        else:
            self._prepare_rebalance(effects, reason, now)

    def _prepare_rebalance(self, effects: Effects, reason: str, now: Now) -> None:
        self._reset(effects, reason, now)
        self._try_complete_join(effects, now)

    def _reset(self, effects: Effects, reason: str, now: Now) -> None:
        """Enter the join phase; nobody has joined it yet but who waits already."""
        if self.state is _COMPLETING:
            error = RebalanceInProgressError(f"group {self.group_id} begins another generation")
            for member in self.members.values():
                member.assignment = b""
                if member.sync_ticket is not None:
                    self._answer_sync_error(effects, member, error)
                    self._touch(member, now)
        self.unsynced.clear()
        self.sync_deadline_ms = None
        if self.state is _EMPTY:
            delay = self.config.group_initial_rebalance_delay_ms
            self.initial_remaining_ms = max(self._rebalance_timeout_ms - delay, 0)
            self.has_new_arrivals = False
            self.join_deadline_ms = now.monotonic_ms + delay
        else:
            self.initial_remaining_ms = None
            self.join_deadline_ms = now.monotonic_ms + self._rebalance_timeout_ms
        if self.rebalance_began_ms is None:
            self.rebalance_began_ms = now.monotonic_ms
        self.rebalance_reason = reason
        effects.note(
            "GroupRebalanceStarted",
            group=self.group_id,
            generation=self.generation_id,
            state=self.state.value,
            reason=reason,
            members=len(self.members),
        )
        self._enter(_PREPARING, now)

    def _try_complete_join(self, effects: Effects, now: Now) -> None:
        """Complete the join phase if nobody is missing."""
        if self.state is not _PREPARING:
            return
        assert self.join_deadline_ms is not None
        if self.initial_remaining_ms is not None and self.members:
            # An empty group waits for company however many have come.
            if self.join_deadline_ms <= now.monotonic_ms:
                self._join_time_is_up(effects, now)
            return
        if not self.pending and all(member.join_ticket is not None for member in self.members.values()):
            self._complete_join(effects, now)

    def _join_time_is_up(self, effects: Effects, now: Now) -> None:
        remaining = self.initial_remaining_ms
        if remaining and self.has_new_arrivals and self.members:
            delay = min(self.config.group_initial_rebalance_delay_ms, remaining)
            self.initial_remaining_ms = remaining - delay
            self.has_new_arrivals = False
            self.join_deadline_ms = now.monotonic_ms + delay
            if delay:
                return
        self._complete_join(effects, now)

    def _complete_join(self, effects: Effects, now: Now) -> None:
        """Form the next generation out of those who joined."""
        for member in list(self.members.values()):
            if member.join_ticket is None and member.group_instance_id is None:
                reason = f"it did not rejoin within {self._rebalance_timeout_ms} ms"
                effects.note("GroupMemberExpired", **self._member_facts(member), reason=reason)
                self._drop(effects, member)
        if self.members and not self._elect_joined_leader():
            # Only static members, and none of them here: another round, until their sessions end.
            self.initial_remaining_ms = None
            self.join_deadline_ms = now.monotonic_ms + max(self._rebalance_timeout_ms, 1)
            return
        self.join_deadline_ms = self.initial_remaining_ms = None
        self.generation_id += 1
        if not self.members:
            self.protocol = self.leader = None
            self._enter(_EMPTY, now)
            effects.stores.append(StoreGroup(self.group_id, self._value({}), StorePurpose.EMPTY))
            self._note_completed(effects, now, {})
            return
        self.protocol = self._select_protocol()
        self._enter(_COMPLETING, now)
        self.is_storing = False
        self.sync_deadline_ms = now.monotonic_ms + self._rebalance_timeout_ms
        for member in self.members.values():
            self.unsynced[member.member_id] = None
            member.is_new = False
            self._touch(member, now)
            if member.join_ticket is not None:
                answer = self._joined(member, with_members=member.member_id == self.leader)
                effects.answers.append((member.join_ticket, answer))
                member.join_ticket = None

    def _elect_joined_leader(self) -> bool:
        """Make sure that the leader is among those who joined; False where nobody joined."""
        leader = self.members.get(self.leader or "")
        if leader is not None and leader.join_ticket is not None:
            return True
        for member in self.members.values():
            if member.join_ticket is not None:
                self.leader = member.member_id
                return True
        return False

    def _select_protocol(self) -> str:
        """The protocol that all support and most prefer; the leader's preference breaks ties."""
        common = self._common_protocols()
        votes = Counter(
            next(name for name, _ in member.protocols if name in common) for member in self.members.values()
        )
        preferences = self.members[self.leader or next(iter(self.members))].protocols
        ranked = [name for name, _ in preferences if name in votes] + sorted(votes)
        return max(ranked, key=lambda name: votes[name])

    def _joined(
        self, member: Member, *, with_members: bool, skip_assignment: bool = False
    ) -> JoinGroupResponse:
        return JoinGroupResponse(
            error_code=ErrorCode.NONE,
            generation_id=self.generation_id,
            protocol_type=self.protocol_type,
            protocol_name=self.protocol,
            leader=self.leader or "",
            skip_assignment=skip_assignment,
            member_id=member.member_id,
            members=[
                JoinGroupResponseMember(
                    member_id=one.member_id,
                    group_instance_id=one.group_instance_id,
                    metadata=one.metadata(self.protocol),
                )
                for one in self.members.values()
            ]
            if with_members
            else [],
        )

    # ---- sync ----

    def sync(self, request: SyncGroupRequest, *, ticket: Ticket, now: Now) -> Effects:
        """Take the leader's assignment; give every member its own once that is stored."""
        effects = Effects()
        try:
            self._sync(effects, request, ticket, now)
        except BrokerError as error:
            effects.answers.append((ticket, sync_error(error)))
        return effects

    def _sync(self, effects: Effects, request: SyncGroupRequest, ticket: Ticket, now: Now) -> None:
        member = self._present(request.member_id, request.group_instance_id)
        self._check_generation(request.generation_id)
        if request.protocol_type is not None and request.protocol_type != self.protocol_type:
            raise InconsistentGroupProtocolError(
                f"protocol type {request.protocol_type!r}, the group's is {self.protocol_type!r}"
            )
        if (
            request.protocol_name is not None
            and request.protocol_name != self.protocol
            and self.state is not _PREPARING
        ):
            raise InconsistentGroupProtocolError(
                f"protocol {request.protocol_name!r}, chosen is {self.protocol!r}"
            )
        if self.state is _PREPARING:
            raise RebalanceInProgressError(f"group {self.group_id} begins another generation")
        self.unsynced.pop(member.member_id, None)
        if self.state is _STABLE:
            effects.answers.append((ticket, self._synced(member)))
            self._touch(member, now)
            return
        self._answer_sync_error(effects, member, RebalanceInProgressError("a later sync took its place"))
        member.sync_ticket = ticket
        if member.member_id == self.leader and not self.is_storing:
            self.is_storing = True
            given = {one.member_id: bytes(one.assignment) for one in request.assignments}
            value = self._value({one: given.get(one, b"") for one in self.members})
            effects.stores.append(StoreGroup(self.group_id, value, StorePurpose.ASSIGNMENT))

    def after_store(self, store: StoreGroup, error: BrokerError | None, now: Now) -> Effects:
        """The append of ``store`` is committed, or failed with ``error`` (one for members)."""
        effects = Effects()
        if store.value.generation_id != self.generation_id:
            return effects
        match store.purpose:
            case StorePurpose.ASSIGNMENT if self.state is _COMPLETING:
                self._assigned(effects, store.value, error, now)
            case StorePurpose.REPLACED_MEMBER if self.state is _STABLE:
                member = self.members.get(store.member_id)
                if member is not None and member.join_ticket is not None:
                    self._answer_replaced(effects, member, error)
                    self._touch(member, now)
        return effects

    def _assigned(self, effects: Effects, value: GroupValue, error: BrokerError | None, now: Now) -> None:
        if error is not None:
            for member in self.members.values():
                if member.sync_ticket is not None:
                    self._answer_sync_error(effects, member, error)
                    self._touch(member, now)
            self._prepare_rebalance(effects, f"the assignment could not be stored: {error}", now)
            return
        assignments = {member.member_id: member.assignment for member in value.members}
        self._enter(_STABLE, now)
        for member in self.members.values():
            member.assignment = assignments.get(member.member_id, b"")
            if member.sync_ticket is not None:
                effects.answers.append((member.sync_ticket, self._synced(member)))
                member.sync_ticket = None
                self._touch(member, now)
        self._note_completed(effects, now, self._assignments())

    def _answer_replaced(self, effects: Effects, member: Member, error: BrokerError | None) -> None:
        assert member.join_ticket is not None
        if error is not None:
            self._answer_join_error(effects, member, error)
            return
        is_leader = member.member_id == self.leader
        answer = self._joined(member, with_members=is_leader, skip_assignment=is_leader)
        effects.answers.append((member.join_ticket, answer))
        member.join_ticket = None

    def _synced(self, member: Member) -> SyncGroupResponse:
        return SyncGroupResponse(
            error_code=ErrorCode.NONE,
            protocol_type=self.protocol_type,
            protocol_name=self.protocol,
            assignment=member.assignment,
        )

    def _note_completed(self, effects: Effects, now: Now, assignments: Mapping[str, bytes]) -> None:
        began = now.monotonic_ms if self.rebalance_began_ms is None else self.rebalance_began_ms
        after = owners(self.protocol_type, assignments)
        moved = {} if after is None else moves(self.owners_before or {}, after)
        effects.note(
            "GroupRebalanceCompleted",
            group=self.group_id,
            generation=self.generation_id,
            protocol=self.protocol,
            leader=self.leader,
            members=len(self.members),
            took_ms=now.monotonic_ms - began,
            reason=self.rebalance_reason,
            **moved,
        )
        self.rebalance_began_ms = None
        self.owners_before = after

    # ---- heartbeat, leave ----

    def heartbeat(self, request: HeartbeatRequest, now: Now) -> None:
        """Note a sign of life. Raises the BrokerError to answer, RebalanceInProgressError among them."""
        member = self._present(request.member_id, request.group_instance_id)
        self._check_generation(request.generation_id)
        if not member.is_waiting:
            self._touch(member, now)
        if self.state is _PREPARING:
            raise RebalanceInProgressError(f"group {self.group_id} rebalances: {self.rebalance_reason}")

    def leave(self, leaving: LeaveGroupMember, now: Now) -> tuple[ErrorCode, Effects]:
        """Let one member go, or remove it; returns its error and what follows."""
        effects = Effects()
        if leaving.member_id and leaving.member_id in self.pending:
            if leaving.group_instance_id is not None:
                return ErrorCode.UNKNOWN_MEMBER_ID, effects
            del self.pending[leaving.member_id]
            effects.note(
                "GroupMemberLeft",
                group=self.group_id,
                member=leaving.member_id,
                reason=leaving.reason or "it left before it had joined",
            )
            self._try_complete_join(effects, now)
            return ErrorCode.NONE, effects
        try:
            if leaving.member_id:
                member = self._member(leaving.member_id, leaving.group_instance_id)
            else:
                member = self._member(
                    self.static.get(leaving.group_instance_id or "", ""), leaving.group_instance_id
                )
        except BrokerError as error:
            return error.code, effects
        what = "left" if leaving.member_id else "was removed"
        effects.note("GroupMemberLeft", **self._member_facts(member), reason=leaving.reason or f"it {what}")
        self._remove_and_go_on(effects, member, f"{member.owner} {what}" + _because(leaving.reason), now)
        return ErrorCode.NONE, effects

    # ---- commits ----

    def check_commit(
        self, generation_id: int, member_id: str, group_instance_id: str | None, now: Now
    ) -> None:
        """Raise the BrokerError that a commit of offsets by this member deserves, if any.

        A commit is a sign of life.
        """
        if self.state is _DEAD:
            raise CoordinatorNotAvailableError(f"group {self.group_id} is being removed")
        if generation_id < 0 and self.state is _EMPTY:
            return
        if generation_id < 0 and not member_id and group_instance_id is None:
            raise UnknownMemberIdError(
                f"group {self.group_id} is {self.state.value}: only its members commit its offsets"
            )
        member = self._member(member_id, group_instance_id)
        self._check_generation(generation_id)
        if self.state is _COMPLETING:
            raise RebalanceInProgressError(f"group {self.group_id} waits for its assignment")
        if not member.is_waiting:
            self._touch(member, now)

    def subscribed_topics(self) -> frozenset[str] | None:
        """The topics that members of a consumer group want; None where that cannot be known."""
        if self.protocol_type != PROTOCOL_TYPE:
            return None
        topics: set[str] = set()
        try:
            for member in self.members.values():
                # A member that is new in a join phase may not even support the last protocol.
                metadata = member.metadata(self.protocol) or member.protocols[0][1]
                topics.update(Subscription.decode(metadata).topics)
        except MalformedConsumerProtocol:
            return None
        return frozenset(topics)

    # ---- steps that several of the above take ----

    @property
    def is_simple(self) -> bool:
        """Whether nobody ever joined it: it only keeps offsets."""
        return self.protocol_type is None

    @property
    def _rebalance_timeout_ms(self) -> int:
        """As long as the most patient member wants."""
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def _assignments(self) -> dict[str, bytes]:
        return {member.owner: member.assignment for member in self.members.values()}

    def _enter(self, state: GroupState, now: Now | None) -> None:
        assert self.state in VALID_PREVIOUS[state], f"{self.group_id}: {self.state} does not become {state}"
        self.state = state
        if now is not None:
            self.state_timestamp_ms = now.wall_ms

    def _touch(self, member: Member, now: Now) -> None:
        """Begin the member's session anew."""
        member.deadline_ms = now.monotonic_ms + member.session_timeout_ms

    def _add(self, member: Member) -> None:
        self.members[member.member_id] = member
        if member.group_instance_id is not None:
            self.static[member.group_instance_id] = member.member_id
        if self.leader is None:
            self.leader = member.member_id

    def _drop(self, effects: Effects, member: Member) -> None:
        """Take a member out; what it waits for is answered UNKNOWN_MEMBER_ID."""
        error = UnknownMemberIdError(f"{member.member_id} is no member of {self.group_id} any more")
        self._answer_join_error(effects, member, error)
        self._answer_sync_error(effects, member, error)
        del self.members[member.member_id]
        self.unsynced.pop(member.member_id, None)
        if member.group_instance_id is not None:
            self.static.pop(member.group_instance_id, None)
        if self.leader == member.member_id:
            self.leader = next(iter(self.members), None)

    def _remove_and_go_on(self, effects: Effects, member: Member, reason: str, now: Now) -> None:
        self._drop(effects, member)
        self._rebalance(effects, reason, now)

    def _present(self, member_id: str, group_instance_id: str | None) -> Member:
        if self.state is _DEAD:
            raise CoordinatorNotAvailableError(f"group {self.group_id} is being removed")
        return self._member(member_id, group_instance_id)

    def _member(self, member_id: str, group_instance_id: str | None) -> Member:
        """Find a member, fencing one whose instance id another has taken over."""
        if group_instance_id is not None:
            current = self.static.get(group_instance_id)
            if current is None:
                raise UnknownMemberIdError(f"{group_instance_id} is no member of {self.group_id}")
            if current != member_id:
                raise FencedInstanceIdError(f"{group_instance_id} is {current} now, not {member_id}")
        member = self.members.get(member_id)
        if member is None:
            raise UnknownMemberIdError(f"{member_id or 'nobody'} is no member of {self.group_id}")
        return member

    def _check_generation(self, generation_id: int) -> None:
        if generation_id != self.generation_id:
            raise IllegalGenerationError(
                f"group {self.group_id} is in generation {self.generation_id}, not {generation_id}"
            )

    def _answer_join_error(self, effects: Effects, member: Member, error: BrokerError) -> None:
        if member.join_ticket is not None:
            effects.answers.append((member.join_ticket, join_error(error, member.member_id)))
            member.join_ticket = None

    def _answer_sync_error(self, effects: Effects, member: Member, error: BrokerError) -> None:
        if member.sync_ticket is not None:
            effects.answers.append((member.sync_ticket, sync_error(error)))
            member.sync_ticket = None

    def _value(self, assignments: Mapping[str, bytes]) -> GroupValue:
        """This generation as a record; Empty where ``assignments`` is."""
        return GroupValue(
            protocol_type=self.protocol_type or "",
            generation_id=self.generation_id,
            protocol=self.protocol,
            leader=self.leader,
            state_timestamp_ms=self.state_timestamp_ms,
            members=tuple(
                MemberValue(
                    member.member_id,
                    member.group_instance_id,
                    member.client_id,
                    member.client_host,
                    member.rebalance_timeout_ms,
                    member.session_timeout_ms,
                    member.metadata(self.protocol),
                    assignments[member.member_id],
                )
                for member in self.members.values()
            ),
        )

    def _member_facts(self, member: Member) -> dict[str, str | None]:
        return {
            "group": self.group_id,
            "member": member.member_id,
            "instance": member.group_instance_id,
            "client": member.client_id,
            "host": member.client_host,
        }


def _owes_a_rejoin(member: Member, protocol: str | None) -> bool:
    """Whether this generation takes from a cooperative member what it had when it joined.

    Then it is to let go and join again, so that others get that. A process that takes its place knows
    nothing of it, and without a rebalance those partitions would be nobody's.
    """
    try:
        owned = Subscription.decode(member.metadata(protocol)).owned_partitions
        return not set(owned) <= set(Assignment.decode(member.assignment).partitions)
    except MalformedConsumerProtocol:
        return False


def _rebalance_timeout(request: JoinGroupRequest) -> int:
    timeout = request.rebalance_timeout_ms
    return request.session_timeout_ms if timeout < 0 else timeout


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""


def join_error(error: BrokerError, member_id: str) -> JoinGroupResponse:
    """A join's answer that is nothing but an error."""
    return JoinGroupResponse(error_code=error.code, leader="", member_id=member_id, members=[])


def sync_error(error: BrokerError) -> SyncGroupResponse:
    """A sync's answer that is nothing but an error."""
    return SyncGroupResponse(error_code=error.code, assignment=b"")
