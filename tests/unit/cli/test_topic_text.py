"""The text of kafka-topics is Kafka 2.8's to the tab; the JSON is the contract's."""

from __future__ import annotations

import pytest

from kafkalite.cli.topic_text import (
    Filters,
    PartitionView,
    TopicView,
    describe,
    parse_assignment,
    survival,
    to_json,
)
from kafkalite.common import ZERO_UUID

LIVE = frozenset({1, 2})


def partition(
    number: int,
    leader: int | None = 1,
    isr: tuple[int, ...] = (1, 2, 3),
    replicas: tuple[int, ...] = (1, 2, 3),
) -> PartitionView:
    return PartitionView(partition=number, leader=leader, leader_epoch=4, replicas=replicas, isr=isr)


def topic(*partitions: PartitionView, min_isr: int = 2, **overrides: str) -> TopicView:
    return TopicView(
        topic="t",
        topic_id="Yx5xvQ9ESSS0kqTmUqIVTw",
        partitions=partitions,
        overrides={name.replace("_", "."): value for name, value in overrides.items()},
        min_insync_replicas=min_isr,
    )


def test_describe_is_kafkas_text() -> None:
    lines = describe(
        [topic(partition(0), partition(1, leader=None, isr=()), cleanup_policy="compact", retention_ms="1")],
        Filters(),
        LIVE,
        talkative=False,
    )
    assert lines == [
        "Topic: t\tTopicId: Yx5xvQ9ESSS0kqTmUqIVTw\tPartitionCount: 2\tReplicationFactor: 3"
        "\tConfigs: cleanup.policy=compact,retention.ms=1",
        "\tTopic: t\tPartition: 0\tLeader: 1\tReplicas: 1,2,3\tIsr: 1,2,3",
        "\tTopic: t\tPartition: 1\tLeader: none\tReplicas: 1,2,3\tIsr: ",
    ]


def test_a_topic_without_an_id_shows_none() -> None:
    view = TopicView(topic="old", topic_id=ZERO_UUID, partitions=(partition(0),))
    assert describe([view], Filters(), LIVE, talkative=False)[0] == (
        "Topic: old\tPartitionCount: 1\tReplicationFactor: 3\tConfigs: "
    )


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        (Filters(under_replicated=True), [1, 2, 3, 4]),
        (Filters(unavailable=True), [3, 4]),
        (Filters(under_min_isr=True), [2, 3]),
        (Filters(at_min_isr=True), [1, 4]),
    ],
)
def test_trouble_filters(filters: Filters, shown: list[int]) -> None:
    view = topic(
        partition(0),
        partition(1, isr=(1, 2)),
        partition(2, isr=(1,)),
        partition(3, leader=None, isr=(3,)),
        partition(4, leader=3, isr=(3, 1)),
    )
    lines = describe([view], filters, LIVE, talkative=True)
    assert [int(line.split("\t")[2].removeprefix("Partition: ")) for line in lines] == shown
    assert [p["partition"] for p in to_json([view], filters, LIVE)["topics"][0]["partitions"]] == shown


def test_a_topic_without_trouble_is_left_out_of_the_json() -> None:
    assert to_json([topic(partition(0))], Filters(under_replicated=True), LIVE) == {"topics": []}


def test_topics_with_overrides_shows_their_headers_only() -> None:
    views = [topic(partition(0)), topic(partition(0), retention_ms="1")]
    lines = describe(views, Filters(with_overrides=True), LIVE, talkative=False)
    assert len(lines) == 1
    assert lines[0].endswith("Configs: retention.ms=1")


def test_json_is_the_contracts() -> None:
    assert to_json([topic(partition(0, leader=None), retention_ms="1")], Filters(), LIVE) == {
        "topics": [
            {
                "topic": "t",
                "topic_id": "Yx5xvQ9ESSS0kqTmUqIVTw",
                "partition_count": 1,
                "replication_factor": 3,
                "configs": {"retention.ms": "1"},
                "partitions": [
                    {
                        "partition": 0,
                        "leader": None,
                        "leader_epoch": 4,
                        "replicas": [1, 2, 3],
                        "isr": [1, 2, 3],
                    }
                ],
            }
        ]
    }


@pytest.mark.parametrize(
    ("replicas", "min_isr", "promise"),
    [
        ((1,), 1, "not the loss of the one broker"),
        ((1, 2, 3), 1, "may be on one of 3 brokers only"),
        ((1, 2, 3), 2, "at least 2 of 3 brokers and survives the loss of any one broker"),
        ((1, 2, 3), 3, "at least 3 of 3 brokers and survives the loss of any 2 brokers"),
    ],
)
def test_what_an_acknowledgement_survives(replicas: tuple[int, ...], min_isr: int, promise: str) -> None:
    sentence = survival(topic(partition(0, replicas=replicas), min_isr=min_isr))
    assert promise in sentence
    assert sentence.count(".") == sentence.count("min.insync.replicas") * 2 + 1, "one sentence"


def test_unclean_elections_are_named() -> None:
    view = TopicView(
        topic="t",
        topic_id=ZERO_UUID,
        partitions=(partition(0),),
        min_insync_replicas=2,
        unclean_elections=True,
    )
    assert "unless an unclean election" in survival(view)


def test_assignments() -> None:
    assert parse_assignment("1:2,2:3") == {0: [1, 2], 1: [2, 3]}


@pytest.mark.parametrize("text", ["1:1", "1:2,3", "a:b", "1:2,,3:4", ""])
def test_bad_assignments(text: str) -> None:
    with pytest.raises(ValueError, match=r"replica|replication factor|broker ids"):
        parse_assignment(text)
