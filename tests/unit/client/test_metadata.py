"""The metadata cache: belief moves forward only."""

from __future__ import annotations

from collections.abc import Sequence

from kafkalite.client.metadata import Metadata, Node
from kafkalite.common import TopicPartition, Uuid
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)

ID_A = Uuid("A" * 21 + "Q")
ID_B = Uuid("B" * 21 + "Q")
TP = TopicPartition("t", 0)


def topic(
    *leaders: tuple[int, int], name: str = "t", topic_id: Uuid = ID_A, error: int = 0
) -> MetadataResponseTopic:
    return MetadataResponseTopic(
        error_code=error,
        name=name,
        topic_id=topic_id,
        partitions=[
            MetadataResponsePartition(
                error_code=0,
                partition_index=index,
                leader_id=leader,
                leader_epoch=epoch,
                replica_nodes=[1, 2],
                isr_nodes=[1],
            )
            for index, (leader, epoch) in enumerate(leaders)
        ],
    )


def answer(
    *topics: MetadataResponseTopic, brokers: Sequence[int] = (1, 2), controller: int = 1
) -> MetadataResponse:
    return MetadataResponse(
        brokers=[MetadataResponseBroker(node_id=i, host="h", port=i) for i in brokers],
        cluster_id="c",
        controller_id=controller,
        topics=list(topics),
    )


def cache(*topics: MetadataResponseTopic) -> Metadata:
    metadata = Metadata()
    metadata.update(answer(*topics), every_topic=False)
    return metadata


def test_look_ups() -> None:
    metadata = cache(topic((1, 0), (-1, 3)))
    assert metadata.leader_of(TP) == Node(1, "h", 1)
    assert metadata.leader_of(TopicPartition("t", 1)) is None
    assert metadata.partition(TopicPartition("t", 2)) is None
    assert metadata.topics["t"].available == (0,)
    assert metadata.topics["t"].count == 2
    assert (metadata.cluster_id, metadata.controller_id) == ("c", 1)


def test_an_older_leader_epoch_does_not_count_and_a_newer_one_does() -> None:
    metadata = cache(topic((1, 5)))
    version = metadata.version
    assert not metadata.update(answer(topic((2, 4))), every_topic=False)
    assert metadata.version == version
    assert metadata.partition(TP).leader == 1  # type: ignore[union-attr]
    assert metadata.update(answer(topic((2, 6))), every_topic=False)
    assert metadata.version == version + 1
    assert metadata.partition(TP).leader == 2  # type: ignore[union-attr]


def test_a_recreated_topic_starts_anew() -> None:
    metadata = cache(topic((1, 5), (1, 5)))
    metadata.update(answer(topic((2, 0), topic_id=ID_B)), every_topic=False)
    assert metadata.partition(TP).leader_epoch == 0  # type: ignore[union-attr]
    assert metadata.partition(TopicPartition("t", 1)) is None


def test_partitions_are_not_lost_to_an_answer_that_is_behind() -> None:
    metadata = cache(topic((1, 5), (1, 5)))
    metadata.update(answer(topic((1, 5))), every_topic=False)
    assert metadata.topics["t"].count == 2


def test_topics_that_are_gone() -> None:
    metadata = cache(topic((1, 0)), topic((1, 0), name="u"))
    gone = topic(error=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    assert metadata.update(answer(gone), every_topic=False)
    assert set(metadata.topics) == {"u"}
    assert metadata.topic_errors == {"t": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}
    assert metadata.leader_of(TP) is None
    assert metadata.update(answer(), every_topic=True)
    assert not metadata.topics
    assert not metadata.topic_errors


def test_an_answer_without_brokers_takes_none_away() -> None:
    metadata = cache(topic((1, 0)))
    metadata.update(answer(topic((1, 0)), brokers=()), every_topic=False)
    assert set(metadata.nodes) == {1, 2}


def test_hints() -> None:
    metadata = cache(topic((1, 5)))
    assert not metadata.hint_leader(TP, 2, 5)
    assert not metadata.hint_leader(TP, 3, 6)
    metadata.hint_nodes([Node(3, "h", 3), Node(1, "elsewhere", 1)])
    assert metadata.nodes[1].host == "h"
    assert metadata.hint_leader(TP, 3, 6)
    assert metadata.leader_of(TP) == Node(3, "h", 3)
    assert not metadata.hint_leader(TopicPartition("x", 0), 3, 6)
    metadata.update(answer(topic((1, 5))), every_topic=False)
    assert metadata.partition(TP).leader == 3  # type: ignore[union-attr]
