"""Placement of replicas: the reference's examples, and what must hold for every cluster."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.assignment import Candidate, InconsistentRacks, alternate_racks, place_replicas
from kafkalite.common import BrokerId


def brokers(count: int, racks: list[str] | None = None) -> list[Candidate]:
    return [Candidate(BrokerId(b), None if racks is None else racks[b]) for b in range(count)]


def test_the_example_of_the_reference() -> None:
    placed = place_replicas(brokers(5), 7, 3, random.Random(0), start_index=0)
    assert placed == {
        0: (0, 1, 2),
        1: (1, 2, 3),
        2: (2, 3, 4),
        3: (3, 4, 0),
        4: (4, 0, 1),
        5: (0, 2, 3),
        6: (1, 3, 4),
    }


def test_a_later_start_continues_the_numbers_and_bumps_the_shift_at_once() -> None:
    placed = place_replicas(brokers(5), 2, 3, random.Random(0), start_index=0, start_partition=5)
    assert placed == {5: (0, 2, 3), 6: (1, 3, 4)}


def test_racks_take_turns() -> None:
    racks = {BrokerId(b): r for b, r in {0: "a", 3: "a", 4: "a", 1: "b", 5: "b", 2: "c"}.items()}
    assert alternate_racks(racks) == [0, 1, 2, 3, 5, 4]


def test_racks_for_some_only_are_refused() -> None:
    with pytest.raises(InconsistentRacks):
        place_replicas([Candidate(BrokerId(0), "a"), Candidate(BrokerId(1))], 1, 1, random.Random(0))


shapes = st.integers(1, 9).flatmap(
    lambda count: st.tuples(
        st.just(count), st.integers(1, 40), st.integers(1, count), st.integers(0, 2**32), st.integers(-1, 12)
    )
)


@given(shapes)
def test_replicas_differ_and_leaders_are_even(shape: tuple[int, int, int, int, int]) -> None:
    count, partitions, factor, seed, first = shape
    placed = place_replicas(brokers(count), partitions, factor, random.Random(seed), start_partition=first)
    assert list(placed) == list(range(max(0, first), max(0, first) + partitions))
    for replicas in placed.values():
        assert len(set(replicas)) == len(replicas) == factor
    leaders = Counter(replicas[0] for replicas in placed.values())
    per_broker = [leaders[BrokerId(b)] for b in range(count)]
    assert max(per_broker) - min(per_broker) <= 1


@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=9).flatmap(
        lambda racks: st.tuples(
            st.just(racks), st.integers(1, 30), st.integers(1, len(racks)), st.integers(0, 2**32)
        )
    )
)
def test_every_partition_is_in_as_many_racks_as_can_be(shape: tuple[list[str], int, int, int]) -> None:
    racks, partitions, factor, seed = shape
    placed = place_replicas(brokers(len(racks), racks), partitions, factor, random.Random(seed))
    for replicas in placed.values():
        assert len(set(replicas)) == len(replicas) == factor
        assert len({racks[b] for b in replicas}) == min(factor, len(set(racks)))
    leaders = Counter(replicas[0] for replicas in placed.values())
    per_broker = [leaders[BrokerId(b)] for b in range(len(racks))]
    assert max(per_broker) - min(per_broker) <= 1
