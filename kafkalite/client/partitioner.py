"""Which partition a record goes to: Kafka's murmur2 for keys, sticky for records without one.

The same key goes to the same partition as with Kafka's own clients, as long as the number of
partitions stays. Records without a key stay on one partition until its batch is sealed and then
go on to another, drawn at random and likelier the fewer batches wait there: whole batches instead
of crumbs for every partition (KIP-480, KIP-794).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

Partitioner: TypeAlias = Callable[[bytes | None, Sequence[int], Sequence[int]], int]
"""Called with the serialised key, all partitions, and those that have a leader."""

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 of ``data``, as an unsigned number."""
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for k in struct.unpack_from(f"<{whole >> 2}I", data):
        k = (k * _M) & _MASK
        k ^= k >> 24
        h = ((h * _M) & _MASK) ^ ((k * _M) & _MASK)
    if rest := data[whole:]:
        h = ((h ^ int.from_bytes(rest, "little")) * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)


def partition_of_key(key: bytes, count: int) -> int:
    """The partition of ``key`` among ``count``."""
    return (murmur2(key) & 0x7FFFFFFF) % count


def next_sticky(
    available: Sequence[int], queued: Mapping[int, int], previous: int | None, chance: random.Random
) -> int:
    """Draw the next partition to stick to; not ``previous`` where there is another.

    ``queued`` is how many batches the partitions have that have any; shorter queues are likelier.
    """
    others = [partition for partition in available if partition != previous] or available
    if not queued:
        return chance.choice(others)
    longest = max(queued.values())
    return chance.choices(others, [longest + 1 - queued.get(partition, 0) for partition in others])[0]
