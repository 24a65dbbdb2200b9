"""Why a group rebalanced: who came, went or was thrown out, how long it took, and what changed hands. Pure.

Each rebalance ends with an event of its coordinator, which says why it began; who came and went since the one
before stands beside it. Events of coordinators whose journals could not be read are missing, and nothing is
made up for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kafkalite.journal import Event
from kafkalite.why.history import History

_MEMBERSHIP: Final = {
    "GroupMemberJoined": "joined",
    "GroupMemberReplaced": "took its old place again",
    "GroupMemberLeft": "left",
    "GroupMemberExpired": "was removed",
}
_OFFSETS: Final = {
    "GroupOffsetsExpired": "offsets expired",
    "GroupOffsetsDeleted": "offsets were deleted",
    "GroupDeleted": "the group was deleted",
}
"""People ask for these when a consumer begins somewhere else than they thought."""
SHOWN_MOVES: Final = 10


class Change(msgspec.Struct, frozen=True):
    """One member that came or went, or what befell the group's offsets."""

    time: int
    what: str
    member: str
    """Empty where it is not about a member."""
    client: str | None
    host: str | None
    reason: str


class Rebalance(msgspec.Struct, frozen=True):
    """One rebalance, from the first reason to the assignment."""

    time: int
    """When it was over, in milliseconds since the epoch."""
    coordinator: int
    generation: int
    reason: str
    took_ms: float
    members: int
    partitions_moved: int | None
    """None where the members are no consumers."""
    moves: tuple[Mapping[str, Any], ...]
    """The first of them: topic, partition, from, to."""
    changes: tuple[Change, ...]
    """Who came and went since the rebalance before."""


class GroupAnswer(msgspec.Struct, frozen=True):
    """What the journals tell of one group."""

    group: str
    rebalances: tuple[Rebalance, ...]
    """The oldest first."""
    since: tuple[Change, ...]
    """Who came and went after the last rebalance, or before any, and what befell the offsets."""

    @property
    def is_known(self) -> bool:
        """Whether any journal tells of it."""
        return bool(self.rebalances or self.since)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "group": self.group,
            "rebalances": [
                {
                    "time": one.time,
                    "coordinator": one.coordinator,
                    "generation": one.generation,
                    "reason": one.reason,
                    "took_ms": one.took_ms,
                    "members": one.members,
                    "partitions_moved": one.partitions_moved,
                    "moves": [dict(move) for move in one.moves],
                    "changes": [_change_json(change) for change in one.changes],
                }
                for one in self.rebalances
            ],
            "since": [_change_json(change) for change in self.since],
        }


def explain_group(history: History, group: str) -> GroupAnswer:
    """Gather the rebalances of ``group`` and what led to each."""
    rebalances: list[Rebalance] = []
    changes: list[Change] = []
    for event in history.events:
        if event.facts.get("group") != group:
            continue
        if event.type in _MEMBERSHIP:
            changes.append(_change(event))
        elif event.type in _OFFSETS:
            changes.append(Change(event.time, _OFFSETS[event.type], "", None, None, _of_offsets(event)))
        elif event.type == "GroupRebalanceCompleted":
            facts = event.facts
            rebalances.append(
                Rebalance(
                    time=event.time,
                    coordinator=event.broker,
                    generation=facts["generation"],
                    reason=facts.get("reason") or "",
                    took_ms=facts["took_ms"],
                    members=facts["members"],
                    partitions_moved=facts.get("partitions_moved"),
                    moves=tuple(facts.get("moves", ())),
                    changes=tuple(changes),
                )
            )
            changes = []
    return GroupAnswer(group, tuple(rebalances), tuple(changes))


def group_text(answer: GroupAnswer, *, now_ms: int) -> list[str]:
    """The answer in words, the newest rebalance last."""
    count = len(answer.rebalances)
    lines = [f"Group {answer.group}: {count} rebalance{'' if count == 1 else 's'} that the journals tell of."]
    for one in answer.rebalances:
        lines += [
            "",
            f"Generation {one.generation}, {_duration(now_ms - one.time)} ago, "
            f"coordinated by broker {one.coordinator}",
            f"  why: {one.reason or 'no reason was given'}",
        ]
        lines += [f"  {_sentence(change)}" for change in one.changes]
        lines.append(f"  it took {one.took_ms:.0f} ms; {one.members} members since")
        if one.partitions_moved is not None:
            lines.append(f"  {one.partitions_moved} partitions changed hands")
            for move in one.moves[:SHOWN_MOVES]:
                lines.append(
                    f"    {move['topic']}-{move['partition']}: "
                    f"{move['from'] or 'nobody'} to {move['to'] or 'nobody'}"
                )
            if one.partitions_moved > SHOWN_MOVES:
                lines.append(f"    and {one.partitions_moved - SHOWN_MOVES} more")
    if answer.since:
        lines += ["", "Since then:" if answer.rebalances else "So far:"]
        lines += [f"  {_sentence(change)}" for change in answer.since]
    return lines


def _change(event: Event) -> Change:
    facts = event.facts
    return Change(
        time=event.time,
        what=_MEMBERSHIP[event.type],
        member=facts.get("member") or "",
        client=facts.get("client"),
        host=facts.get("host"),
        reason=facts.get("reason") or "",
    )


def _of_offsets(event: Event) -> str:
    facts = event.facts
    if event.type == "GroupDeleted":
        return facts.get("reason") or ""
    partitions = facts.get("partitions", [])
    shown = ", ".join(partitions[:SHOWN_MOVES]) + (", …" if len(partitions) > SHOWN_MOVES else "")
    retention_ms = facts.get("retention_ms")
    why = facts.get("reason") if retention_ms is None else f"not used for {_duration(retention_ms)}"
    return f"{shown} ({why})" if why else shown


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "time": change.time,
        "what": change.what,
        "member": change.member,
        "client": change.client,
        "host": change.host,
        "reason": change.reason,
    }


def _sentence(change: Change) -> str:
    where = f" ({change.client} at {change.host})" if change.client else ""
    who = f"{change.member}{where} " if change.member else ""
    return f"{who}{change.what}{': ' if change.reason else ''}{change.reason}"


def _duration(ms: int) -> str:
    seconds = max(0, ms) / 1000
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
