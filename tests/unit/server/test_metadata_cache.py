"""The metadata cache: what an update replaces, what it merges, and what is answered."""

from __future__ import annotations

from kafkalite.common import BrokerId, TopicPartition, Uuid
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.metadata import MetadataResponse, MetadataTopic
from kafkalite.protocol.update_metadata import (
    UpdateMetadataEndpoint,
    UpdateMetadataLiveBroker,
    UpdateMetadataPartition,
    UpdateMetadataRequest,
    UpdateMetadataTopic,
)
from kafkalite.server.metadata_cache import MetadataCache

TOPIC_ID = Uuid("Yx5xvQ9ESSS0kqTmUqIVTw")


def broker(number: int, *listeners: str) -> UpdateMetadataLiveBroker:
    return UpdateMetadataLiveBroker(
        id=number,
        endpoints=[
            UpdateMetadataEndpoint(listener=name, host=f"{name.lower()}-{number}", port=9092)
            for name in listeners or ("PLAINTEXT",)
        ],
    )


def partition(index: int, leader: int, *, epoch: int = 0) -> UpdateMetadataPartition:
    return UpdateMetadataPartition(
        partition_index=index,
        controller_epoch=1,
        leader=leader,
        leader_epoch=epoch,
        isr=[1, 2],
        zk_version=0,
        replicas=[1, 2],
    )


def update(
    cache: MetadataCache, *brokers: UpdateMetadataLiveBroker, t: list[UpdateMetadataPartition] | None = None
) -> frozenset[str]:
    topics = [] if t is None else [UpdateMetadataTopic(topic_name="t", topic_id=TOPIC_ID, partition_states=t)]
    return cache.update(
        UpdateMetadataRequest(
            controller_id=1, controller_epoch=1, topic_states=topics, live_brokers=list(brokers)
        )
    )


def answered(cache: MetadataCache, topic: str = "t", listener: str = "PLAINTEXT") -> MetadataResponse:
    return cache.metadata([MetadataTopic(name=topic)], listener=listener)


def new_cache() -> MetadataCache:
    return MetadataCache(Uuid("4L6g3nShT-eMCtK--X86sw"))


def test_brokers_are_replaced_and_partitions_merged() -> None:
    cache = new_cache()
    update(cache, broker(1), broker(2), t=[partition(0, 1), partition(1, 2)])
    update(cache, broker(2), t=[partition(1, 2, epoch=3)])
    answer = answered(cache)
    assert [one.node_id for one in answer.brokers] == [2]
    (topic,) = answer.topics
    assert [(one.partition_index, one.leader_epoch) for one in topic.partitions] == [(0, 0), (1, 3)]
    assert topic.partitions[0].error_code == ErrorCode.LEADER_NOT_AVAILABLE
    assert topic.partitions[0].leader_id == -1
    assert topic.topic_id == TOPIC_ID


def test_a_leader_of_minus_2_removes_the_partition_and_the_last_one_the_topic() -> None:
    cache = new_cache()
    update(cache, broker(1), t=[partition(0, 1), partition(1, 1)])
    assert update(cache, broker(1), t=[partition(0, -2)]) == frozenset()
    assert cache.partition_count("t") == 1
    assert update(cache, broker(1), t=[partition(1, -2)]) == {"t"}
    assert answered(cache).topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert list(cache.topics()) == []
    by_id = cache.metadata([MetadataTopic(name=None, topic_id=TOPIC_ID)], listener="PLAINTEXT")
    assert by_id.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID


def test_endpoints_are_those_of_the_listener_that_was_asked() -> None:
    cache = new_cache()
    update(cache, broker(1, "IN", "OUT"), broker(2, "IN"), t=[partition(0, 2)])
    inside, outside = answered(cache, listener="IN"), answered(cache, listener="OUT")
    assert [one.host for one in inside.brokers] == ["in-1", "in-2"]
    assert [one.host for one in outside.brokers] == ["out-1"]
    assert inside.topics[0].partitions[0].leader_id == 2
    assert outside.topics[0].partitions[0].error_code == ErrorCode.LISTENER_NOT_FOUND
    assert [one.host for one in cache.describe_cluster(listener="OUT").brokers] == ["out-1"]


def test_all_topics_or_those_asked_for_by_name_or_id() -> None:
    cache = new_cache()
    update(cache, broker(1), t=[partition(0, 1)])
    assert [one.name for one in cache.metadata(None, listener="PLAINTEXT").topics] == ["t"]
    assert cache.metadata([], listener="PLAINTEXT").topics == []
    by_id = cache.metadata([MetadataTopic(name=None, topic_id=TOPIC_ID)], listener="PLAINTEXT")
    assert by_id.topics[0].name == "t"


def test_a_topic_made_anew_gets_its_new_id() -> None:
    cache = new_cache()
    update(cache, broker(1), t=[partition(0, 1)])
    newer = Uuid("AAAAAAAAAAAAAAAAAAAAAQ")
    cache.update(
        UpdateMetadataRequest(
            controller_id=1,
            controller_epoch=1,
            topic_states=[
                UpdateMetadataTopic(topic_name="t", topic_id=newer, partition_states=[partition(0, 1)])
            ],
            live_brokers=[broker(1)],
        )
    )
    assert cache.topic_id("t") == newer
    old = cache.metadata([MetadataTopic(name=None, topic_id=TOPIC_ID)], listener="PLAINTEXT")
    assert old.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID


def test_what_replication_asks() -> None:
    cache = new_cache()
    told_before = cache.is_told
    update(cache, broker(1), t=[partition(0, 1, epoch=4), partition(1, -1)])
    assert (told_before, cache.is_told) == (False, True)
    assert cache.is_alive(BrokerId(1))
    assert not cache.is_alive(BrokerId(2))
    assert cache.leader_of(TopicPartition("t", 0)) == (1, 4)
    assert cache.leader_of(TopicPartition("t", 7)) is None
