"""Where every znode stands: a constant where the path is fixed, a function where it names something.

Paths are Kafka's and relative to the chroot. Names of users and client ids may hold any
character, so they are percent-encoded (:func:`sanitize`); topics, broker ids and addresses need none.
"""

from __future__ import annotations

import urllib.parse
from typing import Final

from kafkalite.common import BrokerId, TopicPartition

CONTROLLER: Final = "/controller"
CONTROLLER_EPOCH: Final = "/controller_epoch"

BROKERS: Final = "/brokers"
BROKER_IDS: Final = "/brokers/ids"
BROKER_SEQUENCE_ID: Final = "/brokers/seqid"
TOPICS: Final = "/brokers/topics"

CLUSTER: Final = "/cluster"
CLUSTER_ID: Final = "/cluster/id"
FEATURE: Final = "/feature"

CONFIG: Final = "/config"
CONFIG_CHANGES: Final = "/config/changes"
CONFIG_CHANGE_PREFIX: Final = "config_change_"

ADMIN: Final = "/admin"
DELETE_TOPICS: Final = "/admin/delete_topics"
REASSIGN_PARTITIONS: Final = "/admin/reassign_partitions"
PREFERRED_REPLICA_ELECTION: Final = "/admin/preferred_replica_election"

ISR_CHANGE_NOTIFICATION: Final = "/isr_change_notification"
ISR_CHANGE_PREFIX: Final = "isr_change_"
LOG_DIR_EVENT_NOTIFICATION: Final = "/log_dir_event_notification"
LOG_DIR_EVENT_PREFIX: Final = "log_dir_event_"

LATEST_PRODUCER_ID_BLOCK: Final = "/latest_producer_id_block"

CONSUMERS: Final = "/consumers"

ACL: Final = "/kafka-acl"
ACL_CHANGES: Final = "/kafka-acl-changes"
EXTENDED_ACL: Final = "/kafka-acl-extended"
EXTENDED_ACL_CHANGES: Final = "/kafka-acl-extended-changes"
ACL_CHANGE_PREFIX: Final = "acl_changes_"

DELEGATION_TOKENS: Final = "/delegation_token/tokens"
DELEGATION_TOKEN_CHANGES: Final = "/delegation_token/token_changes"
DELEGATION_TOKEN_CHANGE_PREFIX: Final = "token_change_"

DEFAULT_ENTITY: Final = "<default>"
"""The child that stands for every entity without a config of its own."""

CONFIG_TYPES: Final = ("topics", "clients", "users", "brokers", "ips")

PERSISTENT: Final = (
    CONSUMERS,
    BROKER_IDS,
    TOPICS,
    CONFIG_CHANGES,
    DELETE_TOPICS,
    BROKER_SEQUENCE_ID,
    ISR_CHANGE_NOTIFICATION,
    LATEST_PRODUCER_ID_BLOCK,
    LOG_DIR_EVENT_NOTIFICATION,
    *(f"{CONFIG}/{entity_type}" for entity_type in CONFIG_TYPES),
)
"""What every broker creates at its start, parents as needed."""


def broker(broker_id: BrokerId) -> str:
    """The registration of a live broker (ephemeral)."""
    return f"{BROKER_IDS}/{broker_id}"


def topic(name: str) -> str:
    """A topic's id and its assignment of partitions to brokers."""
    return f"{TOPICS}/{name}"


def topic_partitions(name: str) -> str:
    """The parent of a topic's partitions."""
    return f"{TOPICS}/{name}/partitions"


def partition(topic_partition: TopicPartition) -> str:
    """The parent of a partition's state."""
    return f"{TOPICS}/{topic_partition.topic}/partitions/{topic_partition.partition}"


def partition_state(topic_partition: TopicPartition) -> str:
    """Leader and ISR of a partition; its version is the partition epoch."""
    return f"{TOPICS}/{topic_partition.topic}/partitions/{topic_partition.partition}/state"


def delete_topic(name: str) -> str:
    """The wish that a topic be deleted."""
    return f"{DELETE_TOPICS}/{name}"


def entity_config(entity_type: str, *names: str) -> str:
    """The configs of an entity.

    ``names`` are the steps below ``/config/<type>`` as people write them; names of users and
    client ids are percent-encoded here. Quotas of a user's client are
    ``entity_config("users", user, "clients", client)``.
    """
    return f"{CONFIG}/{entity_name(entity_type, *names)}"


def entity_name(entity_type: str, *names: str) -> str:
    """``<type>/<encoded name…>``: the way that config changes name an entity."""
    assert entity_type in CONFIG_TYPES, f"{entity_type!r} is not a type of config"
    assert names, "an entity has a name"
    encoded = entity_type in ("users", "clients")
    return "/".join((entity_type, *(sanitize(name) if encoded else name for name in names)))


def config_change() -> str:
    """What a sequential config change is created as."""
    return f"{CONFIG_CHANGES}/{CONFIG_CHANGE_PREFIX}"


def isr_change() -> str:
    """What a sequential ISR change notification is created as."""
    return f"{ISR_CHANGE_NOTIFICATION}/{ISR_CHANGE_PREFIX}"


def log_dir_event() -> str:
    """What a sequential log directory event is created as."""
    return f"{LOG_DIR_EVENT_NOTIFICATION}/{LOG_DIR_EVENT_PREFIX}"


def acls(resource_type: str, name: str, *, prefixed: bool = False) -> str:
    """The ACLs of a resource pattern; ``resource_type`` in Pascal case (``Topic``)."""
    return f"{EXTENDED_ACL}/prefixed/{resource_type}/{name}" if prefixed else f"{ACL}/{resource_type}/{name}"


def delegation_token(token_id: str) -> str:
    """A delegation token, without its secret."""
    return f"{DELEGATION_TOKENS}/{token_id}"


def consumer_offset(group: str, topic_partition: TopicPartition) -> str:
    """An offset that a consumer of Kafka 0.8 kept in ZooKeeper."""
    return f"{CONSUMERS}/{group}/offsets/{topic_partition.topic}/{topic_partition.partition}"


def parents(path: str) -> list[str]:
    """The ancestors of ``path`` below the root, the topmost first."""
    steps = path.split("/")[1:-1]
    return ["/" + "/".join(steps[: depth + 1]) for depth in range(len(steps))]


def sequence_number(child: str) -> int:
    """The number that ZooKeeper gave a sequential child. Raises ValueError where it has none."""
    return int(child[-10:])


def sanitize(name: str) -> str:
    """Percent-encode a user's or client's name the way Kafka does (``<default>`` stands for itself)."""
    if name == DEFAULT_ENTITY:
        return name
    return urllib.parse.quote(name, safe="-_.").replace("~", "%7E")


def desanitize(name: str) -> str:
    """The name that :func:`sanitize` encoded."""
    return name if name == DEFAULT_ENTITY else urllib.parse.unquote(name)
