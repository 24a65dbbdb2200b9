"""Assignors against Kafka's own examples: same input, same assignment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kafkalite.client.assignors import (
    COOPERATIVE_STICKY,
    RANGE,
    ROUND_ROBIN,
    STICKY,
    Assignor,
    assignor,
    decode_sticky_user_data,
    encode_sticky_user_data,
    java_hash,
    map_order,
)
from kafkalite.common import TopicPartition
from kafkalite.protocol.consumer_protocol import Subscription


def tps(text: str) -> list[TopicPartition]:
    """`t0 t1 u0`: topics of one letter."""
    return [TopicPartition(word[0], int(word[1:])) for word in text.split()]


def wants(
    topics: str, owned: str = "", generation: int = -1, *, user_data: bytes | None = None
) -> Subscription:
    return Subscription(tuple(topics), user_data, tuple(tps(owned)), generation)


def remembers(topics: str, owned: str, generation: int) -> Subscription:
    """What a member of the sticky assignor says."""
    return Subscription(tuple(topics), encode_sticky_user_data(tps(owned), generation), (), generation)


def assign(
    how: Assignor,
    counts: dict[str, int],
    subscriptions: dict[str, Subscription],
    instances: dict[str, str] | None = None,
) -> dict[str, str]:
    found = how.assign(counts, subscriptions, instances or {}, {})
    return {
        member: " ".join(f"{tp.topic}{tp.partition}" for tp in sorted(mine)) for member, mine in found.items()
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [("", 0), ("abc", 96354), ("hello", 99162322), ("polygenelubricants", 2**31), ("\U0001f600", 1772899)],
)
def test_java_string_hash(text: str, value: int) -> None:
    assert java_hash(text) == value


def test_hash_map_order() -> None:
    # "Aa" and "BB" have one hash: their bucket keeps the order in which they came.
    assert map_order(["BB", "Aa"]) == ["BB", "Aa"]
    assert map_order(["Aa", "BB"]) == ["Aa", "BB"]
    # A letter is its own hash: by its last four bits while there are at most twelve, then by five.
    assert map_order("dcba") == ["a", "b", "c", "d"]
    assert map_order("rqpa") == ["p", "q", "a", "r"]
    assert "".join(map_order("abcdefghijklmpq")) == "abcdefghijklmpq"


RANGE_CASES = [
    ({"a": wants("t")}, {"t": 3}, {"a": "t0 t1 t2"}),
    ({"a": wants("t"), "b": wants("t")}, {"t": 1}, {"a": "t0", "b": ""}),
    ({"a": wants("t"), "b": wants("t")}, {"t": 2}, {"a": "t0", "b": "t1"}),
    (
        {"a": wants("tu"), "b": wants("tu")},
        {"t": 3, "u": 3},
        {"a": "t0 t1 u0 u1", "b": "t2 u2"},
    ),
    (
        {"a": wants("t"), "b": wants("tu"), "c": wants("t")},
        {"t": 3, "u": 2},
        {"a": "t0", "b": "t1 u0 u1", "c": "t2"},
    ),
    ({"a": wants("t")}, {}, {"a": ""}),
]


@pytest.mark.parametrize(("subscriptions", "counts", "expected"), RANGE_CASES)
def test_range(
    subscriptions: dict[str, Subscription], counts: dict[str, int], expected: dict[str, str]
) -> None:
    assert assign(RANGE, counts, subscriptions) == expected


ROUND_ROBIN_CASES = [
    ({"a": wants("t"), "b": wants("t")}, {"t": 3}, {"a": "t0 t2", "b": "t1"}),
    (
        {"a": wants("tu"), "b": wants("tu")},
        {"t": 3, "u": 3},
        {"a": "t0 t2 u1", "b": "t1 u0 u2"},
    ),
    (
        {"a": wants("t"), "b": wants("tu"), "c": wants("tuv")},
        {"t": 1, "u": 2, "v": 3},
        {"a": "t0", "b": "u0", "c": "u1 v0 v1 v2"},
    ),
]


@pytest.mark.parametrize(("subscriptions", "counts", "expected"), ROUND_ROBIN_CASES)
def test_round_robin(
    subscriptions: dict[str, Subscription], counts: dict[str, int], expected: dict[str, str]
) -> None:
    assert assign(ROUND_ROBIN, counts, subscriptions) == expected


@pytest.mark.parametrize("how", [RANGE, ROUND_ROBIN])
def test_static_members_come_first_by_their_names(how: Assignor) -> None:
    subscriptions = {"a": wants("t"), "z": wants("t"), "y": wants("t")}
    found = assign(how, {"t": 3}, subscriptions, {"z": "i1", "y": "i2"})
    assert found == {"z": "t0", "y": "t1", "a": "t2"}


@pytest.mark.parametrize("how", [STICKY, COOPERATIVE_STICKY])
def test_sticky_from_nothing(how: Assignor) -> None:
    assert assign(how, {"t": 3}, {"a": wants("t"), "b": wants("t")}) == {"a": "t0 t2", "b": "t1"}
    assert assign(how, {"t": 2, "u": 2}, {"a": wants("tu"), "b": wants("tu")}) == {
        "a": "t0 u0",
        "b": "t1 u1",
    }
    assert assign(how, {}, {"a": wants("t")}) == {"a": ""}
    assert how.assign({}, {}, {}, {}) == {}


def test_sticky_keeps_what_balance_allows() -> None:
    first = {"a": remembers("t", "t0 t1 t2", 1), "b": wants("t")}
    assert assign(STICKY, {"t": 3}, first) == {"a": "t0 t1", "b": "t2"}
    # c leaves: the others keep theirs and share the rest.
    left = {"a": remembers("t", "t0 t3", 2), "b": remembers("t", "t1 t4", 2)}
    assert assign(STICKY, {"t": 6}, left) == {"a": "t0 t2 t3", "b": "t1 t4 t5"}


def test_cooperative_lets_a_moving_partition_rest() -> None:
    first = {"a": wants("t", "t0 t1 t2", 1), "b": wants("t")}
    assert assign(COOPERATIVE_STICKY, {"t": 3}, first) == {"a": "t0 t1", "b": ""}
    then = {"a": wants("t", "t0 t1", 2), "b": wants("t", "", 2)}
    assert assign(COOPERATIVE_STICKY, {"t": 3}, then) == {"a": "t0 t1", "b": "t2"}


def test_cooperative_with_different_subscriptions_lets_it_rest_too() -> None:
    first = {"a": wants("tu", "t0 t1 u0 u1", 1), "b": wants("t")}
    found = assign(COOPERATIVE_STICKY, {"t": 2, "u": 2}, first)
    assert found == {"a": "u0 u1", "b": ""}
    then = {"a": wants("tu", "u0 u1", 2), "b": wants("t", "", 2)}
    assert assign(COOPERATIVE_STICKY, {"t": 2, "u": 2}, then) == {"a": "u0 u1", "b": "t0 t1"}


def test_the_newer_claim_counts_and_two_of_one_generation_cancel_out() -> None:
    newer = {"a": wants("t", "t0 t1", 3), "b": wants("t", "t1 t2", 4), "c": wants("t", "", 4)}
    assert assign(COOPERATIVE_STICKY, {"t": 3}, newer) == {"a": "t0", "b": "t1", "c": ""}
    equal = {"a": wants("t", "t0 t1", 4), "b": wants("t", "t1 t2", 4)}
    found = assign(COOPERATIVE_STICKY, {"t": 3}, equal)
    assert found == {"a": "t0", "b": "t2"}  # t1 rests: either may still be reading it.


def test_claims_of_what_is_gone_count_for_nothing() -> None:
    found = assign(COOPERATIVE_STICKY, {"t": 2}, {"a": wants("t", "t0 t7 u0", 1), "b": wants("t", "", 1)})
    assert found == {"a": "t0", "b": "t1"}


def test_sticky_user_data() -> None:
    owned = tps("t0 t2 u1")
    assert decode_sticky_user_data(encode_sticky_user_data(owned, 7)) == (owned, 7)
    assert decode_sticky_user_data(encode_sticky_user_data(owned, 7)[:-4]) == (owned, None)
    for broken in (b"", b"\0", b"\0\0\0\1", b"\0\0\0\1\x7f\xff", encode_sticky_user_data(owned, 7)[:-7]):
        assert decode_sticky_user_data(broken) == ([], None)


def test_names() -> None:
    names = ("range", "roundrobin", "sticky", "cooperative-sticky")
    assert [assignor(name).name for name in names] == list(names)
    with pytest.raises(ValueError, match="fair"):
        assignor("fair")


KAFKAS = [
    json.loads(line)
    for line in Path(__file__).with_name("kafka_assignments.jsonl").read_text(encoding="utf-8").splitlines()
]
"""Groups with and without racks, some of them several generations old, and what Apache Kafka 3.9.1 (its jar,
run on the same input) assigned: by topic the racks of each partition's replicas, by member what it said."""


def _kafkas(case: dict[str, Any]) -> tuple[dict[str, int], dict[str, Subscription], dict[str, str]]:
    wanted = {topic for said in case["members"].values() for topic in said["topics"]}
    return (
        {topic: len(racks) for topic, racks in case["racks"].items() if topic in wanted and racks},
        {
            member: Subscription(
                tuple(said["topics"]),
                bytes.fromhex(said["user_data"]) if "user_data" in said else None,
                tuple(TopicPartition(topic, number) for topic, number in said.get("owned", [])),
                said.get("generation", -1),
                said.get("rack"),
            )
            for member, said in case["members"].items()
        },
        {member: said["instance"] for member, said in case["members"].items() if "instance" in said},
    )


@pytest.mark.parametrize("name", ["range", "roundrobin", "sticky", "cooperative-sticky"])
def test_the_same_as_kafka(name: str) -> None:
    cases = [case for case in KAFKAS if case["assignor"] == name]
    assert len(cases) >= 20
    for case in cases:
        racks = {
            TopicPartition(topic, number): frozenset(rack for rack in of_partition if rack is not None)
            for topic, partitions in case["racks"].items()
            for number, of_partition in enumerate(partitions)
        }
        found = assignor(name).assign(*_kafkas(case), racks)
        assert {member: sorted(map(list, mine)) for member, mine in found.items()} == case["assigned"], case


@pytest.mark.parametrize("name", ["range", "sticky", "cooperative-sticky"])
def test_without_racks_of_replicas_those_of_members_do_not_matter(name: str) -> None:
    for case in KAFKAS:
        if case["assignor"] == name:
            counts, subscriptions, instances = _kafkas(case)
            rackless = {
                member: Subscription(said.topics, said.user_data, said.owned_partitions, said.generation_id)
                for member, said in subscriptions.items()
            }
            how = assignor(name)
            assert how.assign(counts, subscriptions, instances, {}) == how.assign(
                counts, rackless, instances, {}
            )
