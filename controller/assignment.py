"""Where the replicas of new partitions go.

Aims, in this order: leaders spread evenly over brokers; followers of one broker's partitions spread
over all others (the shift does that, growing by one each round); and, where brokers have racks, as
many racks as possible for each partition. The formulas are Kafka's, so that operators find the
placement they know.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from kafkalite.common import BrokerId
from kafkalite.protocol.errors import InvalidPartitionsError, InvalidReplicationFactorError


class Candidate(msgspec.Struct, frozen=True):
    """A broker that can take replicas."""

    broker: BrokerId
    rack: str | None = None


class InconsistentRacks(Exception):
    """Some brokers have a rack and some have none."""


def place_replicas(
    candidates: Sequence[Candidate],
    partition_count: int,
    replication_factor: int,
    chance: random.Random,
    *,
    start_index: int = -1,
    start_partition: int = -1,
) -> dict[int, tuple[BrokerId, ...]]:
    """Assign ``partition_count`` partitions, numbered from ``start_partition`` (-1: 0) on.

    ``candidates`` sorted by id give a reproducible order. ``start_index`` >= 0 fixes both the first
    leader's index and the followers' shift; -1 draws both. Raises InvalidPartitionsError,
    InvalidReplicationFactorError, InconsistentRacks.
    """
    if partition_count <= 0:
        raise InvalidPartitionsError(f"number of partitions must be larger than 0, not {partition_count}")
    if replication_factor <= 0:
        raise InvalidReplicationFactorError(
            f"replication factor must be larger than 0, not {replication_factor}"
        )
    if replication_factor > len(candidates):
        raise InvalidReplicationFactorError(
            f"replication factor {replication_factor} is larger than the number of available brokers, "
            f"{len(candidates)}"
        )
    racks = {candidate.broker: candidate.rack for candidate in candidates if candidate.rack is not None}
    if racks and len(racks) != len(candidates):
        without = sorted(c.broker for c in candidates if c.rack is None)
        raise InconsistentRacks(f"brokers {without} have no rack, others have one")
    first = start_index if start_index >= 0 else chance.randrange(len(candidates))
    shift = start_index if start_index >= 0 else chance.randrange(len(candidates))
    numbers = range(max(0, start_partition), max(0, start_partition) + partition_count)
    if not racks:
        return _place_without_racks([c.broker for c in candidates], numbers, replication_factor, first, shift)
    return _place_over_racks(racks, numbers, replication_factor, first, shift)


def _slot(first: int, shift: int, index: int, count: int) -> int:
    """The list index of follower ``index``; never ``first`` itself."""
    return (first + 1 + (shift + index) % (count - 1)) % count


def _place_without_racks(
    brokers: Sequence[BrokerId], numbers: range, replication_factor: int, start: int, shift: int
) -> dict[int, tuple[BrokerId, ...]]:
    count = len(brokers)
    placed: dict[int, tuple[BrokerId, ...]] = {}
    for partition in numbers:
        if partition > 0 and partition % count == 0:
            shift += 1
        first = (partition + start) % count
        followers = [brokers[_slot(first, shift, j, count)] for j in range(replication_factor - 1)]
        placed[partition] = (brokers[first], *followers)
    return placed


def alternate_racks(racks: dict[BrokerId, str]) -> list[BrokerId]:
    """Order brokers so that neighbours are in different racks: one of each rack in turn."""
    by_rack = {
        rack: [broker for broker in sorted(racks) if racks[broker] == rack]
        for rack in sorted(set(racks.values()))
    }
    return [
        brokers[turn]
        for turn in range(max(map(len, by_rack.values())))
        for brokers in by_rack.values()
        if turn < len(brokers)
    ]


def _place_over_racks(
    racks: dict[BrokerId, str], numbers: range, replication_factor: int, start: int, shift: int
) -> dict[int, tuple[BrokerId, ...]]:
    brokers = alternate_racks(racks)
    count, rack_count = len(brokers), len(set(racks.values()))
    placed: dict[int, tuple[BrokerId, ...]] = {}
    for partition in numbers:
        if partition > 0 and partition % count == 0:
            shift += 1
        first = (partition + start) % count
        replicas = [brokers[first]]
        used_racks = {racks[brokers[first]]}
        step = 0
        while len(replicas) < replication_factor:
            broker = brokers[_slot(first, shift * rack_count, step, count)]
            step += 1
            rack_is_free = racks[broker] not in used_racks or len(used_racks) == rack_count
            if rack_is_free and broker not in replicas:
                replicas.append(broker)
                used_racks.add(racks[broker])
        placed[partition] = tuple(replicas)
    return placed
