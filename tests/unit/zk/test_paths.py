"""Kafka's paths, and names in them."""

import pytest

from kafkalite.common import BrokerId, TopicPartition
from zk import paths


def test_paths_are_kafkas() -> None:
    tp = TopicPartition("orders", 7)
    assert paths.broker(BrokerId(3)) == "/brokers/ids/3"
    assert paths.topic("orders") == "/brokers/topics/orders"
    assert paths.topic_partitions("orders") == "/brokers/topics/orders/partitions"
    assert paths.partition(tp) == "/brokers/topics/orders/partitions/7"
    assert paths.partition_state(tp) == "/brokers/topics/orders/partitions/7/state"
    assert paths.delete_topic("orders") == "/admin/delete_topics/orders"
    assert paths.consumer_offset("g", tp) == "/consumers/g/offsets/orders/7"
    assert paths.acls("Topic", "pre", prefixed=True) == "/kafka-acl-extended/prefixed/Topic/pre"
    assert paths.acls("Topic", "*") == "/kafka-acl/Topic/*"
    assert paths.parents("/a/b/c") == ["/a", "/a/b"]
    assert paths.parents("/a") == []


@pytest.mark.parametrize(
    ("names", "path"),
    [
        (("topics", "a.b"), "/config/topics/a.b"),
        (("brokers", "<default>"), "/config/brokers/<default>"),
        (("users", "ann b*", "clients", "<default>"), "/config/users/ann%20b%2A/clients/<default>"),
        (("clients", "a/b~c"), "/config/clients/a%2Fb%7Ec"),
    ],
)
def test_configs_have_their_place(names: tuple[str, ...], path: str) -> None:
    assert paths.entity_config(*names) == path


@pytest.mark.parametrize("name", ["plain", "a b", "User:älice", "*", "<default>", "100%", "a+b", "~"])
def test_sanitized_names_come_back(name: str) -> None:
    assert paths.desanitize(paths.sanitize(name)) == name


def test_sequential_names_carry_their_number() -> None:
    assert paths.sequence_number("config_change_0000000012") == 12
    with pytest.raises(ValueError, match="by-hand"):
        paths.sequence_number("by-hand")
