"""What a decision consists of: answers, records to append, and what to write into the journal.

A request that may have to wait comes with a *ticket*; its answer carries that ticket, at once or
from a later decision. Who asked is the runtime's affair.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, NamedTuple, NewType, TypeAlias

import msgspec

from kafkalite.coordinator.group.records import GroupValue
from kafkalite.protocol.join_group import JoinGroupResponse
from kafkalite.protocol.sync_group import SyncGroupResponse

Ticket = NewType("Ticket", int)
"""Names one request that waits for its answer."""

Answer: TypeAlias = JoinGroupResponse | SyncGroupResponse


class Now(NamedTuple):
    """The time, twice: durations are measured on one clock, records carry the other."""

    monotonic_ms: int
    wall_ms: int


class StorePurpose(enum.Enum):
    """Why a group is stored, which says what follows."""

    ASSIGNMENT = "assignment"
    """The leader's assignment: once stored, members get it."""
    EMPTY = "empty"
    """The last member is gone: nobody waits for it."""
    REPLACED_MEMBER = "replaced member"
    """A static member came back under a new member id: once stored, its join is answered."""


class StoreGroup(msgspec.Struct, frozen=True):
    """Append this as the group's record, and say how that went (`Group.stored`)."""

    group_id: str
    value: GroupValue
    purpose: StorePurpose
    member_id: str = ""
    """Of the replaced member."""


class Fact(msgspec.Struct, frozen=True):
    """Something for the journal: an event type and its facts; each is the cause of the next."""

    type: str
    facts: dict[str, Any]


class Effects(msgspec.Struct):
    """What is to be carried out, in this order: facts, answers, the store."""

    answers: list[tuple[Ticket, Answer]] = msgspec.field(default_factory=list)
    stores: list[StoreGroup] = msgspec.field(default_factory=list)
    facts: list[Fact] = msgspec.field(default_factory=list)

    def add(self, other: Effects) -> Effects:
        """Append what ``other`` holds; returns itself."""
        self.answers += other.answers
        self.stores += other.stores
        self.facts += other.facts
        return self

    def note(self, type: str, **facts: Any) -> None:
        """Have an event recorded."""
        self.facts.append(Fact(type, facts))


def gather(effects: Iterable[Effects]) -> Effects:
    """All of ``effects`` as one."""
    whole = Effects()
    for one in effects:
        whole.add(one)
    return whole
