"""Bugs to be planted in what serves consumer groups, one at a time; as in :mod:`.planted`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from kafkalite.client import assignors
from kafkalite.common import TopicPartition
from kafkalite.coordinator import loading, runtime
from kafkalite.coordinator.group.effects import Now
from kafkalite.coordinator.group.group import Group, Member
from kafkalite.coordinator.group.records import OffsetKey, Record
from kafkalite.replication.appends import Appended
from kafkalite.replication.internal import InternalPartitions

from .groups import COORDINATORS
from .planted import Bug, Plant, _patched
from .world import GROUPS, Profile

AT_ONCE: list[Bug] = []
"""Found by one of the first seeds."""
IN_THE_END: list[Bug] = []
"""Found by a seed further on."""


def bug(name: str, faults: dict[str, float], *, at_once: bool = False) -> Callable[[Plant], Plant]:
    """Register a bug with the faults that stress it."""

    def register(plant: Plant) -> Plant:
        profile = Profile(f"planted: {name}", faults, pause_s=6.0, **GROUPS)
        (AT_ONCE if at_once else IN_THE_END).append(Bug(name, plant, profile, minutes=1.5))
        return plant

    return register


@bug(
    "accept a commit of an old generation",
    {"pause": 1, "cut from clients": 6, "slow links": 1},
    at_once=True,
)
def _accept_old_generation() -> contextlib.AbstractContextManager[None]:
    def check_commit(
        self: Group, generation_id: int, member_id: str, group_instance_id: str | None, now: Now
    ) -> None:
        """Whoever once was a member may commit."""

    return _patched((Group, "check_commit", check_commit))


@bug("acknowledge a commit before it is replicated", dict(COORDINATORS), at_once=True)
def _acknowledge_early() -> contextlib.AbstractContextManager[None]:
    async def committed(self: InternalPartitions, appended: Appended, *, timeout_s: float) -> None:
        return

    def apply_committed(self: runtime.GroupCoordinator, served: runtime._Served) -> None:
        while served.in_flight:
            for record in served.in_flight.popleft()[1]:
                served.shard.apply(record)

    return _patched(
        (InternalPartitions, "committed", committed),
        (runtime.GroupCoordinator, "_apply_committed", apply_committed),
    )


@bug("do not load the offsets at take-over", dict(COORDINATORS), at_once=True)
def _forget_offsets() -> contextlib.AbstractContextManager[None]:
    decode = loading.decode_latest

    def decode_latest(latest: Mapping[bytes, bytes | None]) -> tuple[list[Record], list[str]]:
        records, problems = decode(latest)
        return [record for record in records if not isinstance(record.key, OffsetKey)], problems

    return _patched((runtime, "decode_latest", decode_latest))


@bug("give a partition away before its owner has given it up", {"quick restart": 1}, at_once=True)
def _give_early() -> contextlib.AbstractContextManager[None]:
    divide = assignors._assign_sticky

    def assign(*arguments: Any) -> tuple[assignors.Assigned, Mapping[TopicPartition, str]]:
        return divide(*arguments)[0], {}

    return _patched((assignors, "_assign_sticky", assign))


@bug("do not fence a static member that was replaced", {"quick restart": 1})
def _do_not_fence() -> contextlib.AbstractContextManager[None]:
    find = Group._member

    def member(self: Group, member_id: str, group_instance_id: str | None) -> Member:
        current = self.static.get(group_instance_id or "", member_id)
        return find(self, current, group_instance_id)

    return _patched((Group, "_member", member))
