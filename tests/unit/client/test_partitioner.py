"""Partitions: Kafka's own hashes, and stickiness."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from kafkalite.client.partitioner import murmur2, next_sticky, partition_of_key


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"abc", 479470107),
        (b"a-little-bit-long-string", -985981536),
    ],
)
def test_murmur2_is_kafkas(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF
    assert partition_of_key(key, 7) == (signed & 0x7FFFFFFF) % 7


def test_the_next_partition_is_another_and_likelier_where_less_waits() -> None:
    chance = random.Random(1)
    drawn = Counter(next_sticky([0, 2, 5], {0: 9, 5: 9}, 0, chance) for _ in range(1000))
    assert set(drawn) == {2, 5}
    assert drawn[2] > 5 * drawn[5]
    assert next_sticky([4], {4: 100}, 4, chance) == 4


def test_where_nothing_waits_all_others_are_as_likely() -> None:
    chance = random.Random(1)
    drawn = Counter(next_sticky([0, 2, 5, 7], {}, 0, chance) for _ in range(3000))
    assert set(drawn) == {2, 5, 7}
    assert min(drawn.values()) > 900
    assert {next_sticky([0, 2], {}, None, chance) for _ in range(100)} == {0, 2}
