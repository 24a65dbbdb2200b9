"""Assignors on groups of any shape: who gets what, how evenly, and what stays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafkalite.client.assignors import (
    COOPERATIVE_STICKY,
    RANGE,
    ROUND_ROBIN,
    STICKY,
    Assignor,
    encode_sticky_user_data,
)
from kafkalite.common import TopicPartition
from kafkalite.protocol.consumer_protocol import Subscription

TOPICS = ("orders", "payments", "logs", "x")
RACKS = {
    TopicPartition(topic, number): frozenset({"ABC"[(number + len(topic)) % 3], "A" if number % 2 else "C"})
    for topic in TOPICS
    for number in range(9)
}
counts = st.dictionaries(st.sampled_from(TOPICS), st.integers(0, 9), max_size=4)
members = st.lists(st.text("abcdefgh-0123", min_size=1, max_size=8), min_size=1, max_size=9, unique=True)
wishes = st.lists(st.sampled_from(TOPICS), min_size=1, max_size=4, unique=True)
Assigned = dict[str, list[TopicPartition]]


@st.composite
def groups(draw: st.DrawFn, *, equal: bool = False) -> tuple[dict[str, int], dict[str, Subscription]]:
    """A group of which each member claims something, perhaps nonsense."""
    partitions = draw(counts)
    names = draw(members)
    same = tuple(draw(wishes))
    claims = st.lists(
        st.builds(TopicPartition, st.sampled_from(TOPICS), st.integers(0, 10)), max_size=8, unique=True
    )
    subscriptions = {}
    have_racks = draw(st.booleans())
    for name in names:
        topics = same if equal else tuple(draw(wishes))
        owned, generation = draw(claims), draw(st.integers(-1, 3))
        subscriptions[name] = Subscription(
            topics,
            encode_sticky_user_data(owned, generation),
            tuple(owned),
            generation,
            draw(st.sampled_from(("A", "B", "C", None))) if have_racks else None,
        )
    return partitions, subscriptions


def existing(partitions: dict[str, int], subscriptions: dict[str, Subscription]) -> set[TopicPartition]:
    wanted = {topic for subscription in subscriptions.values() for topic in subscription.topics}
    return {TopicPartition(t, n) for t, count in partitions.items() if t in wanted for n in range(count)}


def owners(found: Assigned) -> dict[TopicPartition, str]:
    by_partition: dict[TopicPartition, str] = {}
    for member, mine in found.items():
        for tp in mine:
            assert tp not in by_partition, f"{tp} has two owners"
            by_partition[tp] = member
    return by_partition


def say(
    how: Assignor, subscription: Subscription, owned: list[TopicPartition], generation: int
) -> Subscription:
    return Subscription(
        subscription.topics,
        how.user_data(tuple(owned), generation),
        tuple(owned),
        generation,
        subscription.rack_id,
    )


@pytest.mark.parametrize("how", [RANGE, ROUND_ROBIN, STICKY], ids=lambda how: how.name)
@given(group=groups())
def test_every_partition_has_one_owner_who_wants_it(how: Assignor, group: Any) -> None:
    partitions, subscriptions = group
    found = how.assign(partitions, subscriptions, {}, RACKS)
    assert found.keys() == subscriptions.keys()
    by_partition = owners(found)
    assert by_partition.keys() == existing(partitions, subscriptions)
    assert all(tp.topic in subscriptions[member].topics for tp, member in by_partition.items())


@pytest.mark.parametrize("how", [ROUND_ROBIN, STICKY], ids=lambda how: how.name)
@given(group=groups(equal=True))
def test_equal_wishes_are_shared_evenly(how: Assignor, group: Any) -> None:
    partitions, subscriptions = group
    sizes = [len(mine) for mine in how.assign(partitions, subscriptions, {}, RACKS).values()]
    assert max(sizes) - min(sizes) <= 1


@given(group=groups())
def test_nothing_that_could_move_leaves_sticky_uneven(group: Any) -> None:
    partitions, subscriptions = group
    found = STICKY.assign(partitions, subscriptions, {}, RACKS)
    for member, mine in found.items():
        for other, theirs in found.items():
            if len(theirs) >= len(mine) + 2:
                assert not any(tp.topic in subscriptions[member].topics for tp in theirs), (member, other)


@pytest.mark.parametrize("how", [STICKY, COOPERATIVE_STICKY], ids=lambda how: how.name)
@given(group=groups())
def test_a_settled_group_stays_as_it_is(how: Assignor, group: Any) -> None:
    partitions, subscriptions = group
    found: Assigned = {member: [] for member in subscriptions}
    for generation in range(4, 9):  # Cooperative groups settle after what moves has rested once.
        said = {m: say(how, s, found[m], generation) for m, s in subscriptions.items()}
        found = how.assign(partitions, said, {}, RACKS)
    assert owners(found).keys() == existing(partitions, subscriptions)
    said = {m: say(how, s, found[m], 9) for m, s in subscriptions.items()}
    again = how.assign(partitions, said, {}, RACKS)
    assert {m: set(mine) for m, mine in again.items()} == {m: set(mine) for m, mine in found.items()}


@given(group=groups(equal=True), leaver=st.integers(0, 8))
def test_when_one_leaves_the_others_keep_what_they_had(group: Any, leaver: int) -> None:
    partitions, subscriptions = group
    if len(subscriptions) < 2:
        return
    clean = {m: Subscription(s.topics, rack_id=s.rack_id) for m, s in subscriptions.items()}
    before = STICKY.assign(partitions, clean, {}, {})
    gone = sorted(subscriptions)[leaver % len(subscriptions)]
    said = {m: say(STICKY, s, before[m], 1) for m, s in clean.items() if m != gone}
    after = STICKY.assign(partitions, said, {}, {})
    assert all(set(before[m]) <= set(after[m]) for m in said)


@given(group=groups())
def test_cooperative_never_gives_what_another_holds(group: Any) -> None:
    """Of members that tell the truth: what one owns, nobody else is assigned."""
    partitions, subscriptions = group
    holder: dict[TopicPartition, str] = {}
    truthful = {}
    for member, subscription in subscriptions.items():
        owned = [tp for tp in subscription.owned_partitions if holder.setdefault(tp, member) == member]
        truthful[member] = Subscription(subscription.topics, None, tuple(owned), 5, subscription.rack_id)
    found = COOPERATIVE_STICKY.assign(partitions, truthful, {}, RACKS)
    for tp, member in owners(found).items():
        assert holder.get(tp, member) == member
