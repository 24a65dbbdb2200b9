"""Clients of a kafkalite cluster: a producer, a consumer, and an admin client, for asyncio.

:class:`Producer` and :class:`Consumer` have the argument and method names of aiokafka's, and their meaning;
:class:`AdminClient` creates and describes. All three stand on :mod:`.cluster` (whom to ask, and fresh
metadata) and are rules (pure: :mod:`.metadata`, :mod:`.batch`, :mod:`.partition_queue`,
:mod:`.accumulator`, :mod:`.partitioner`, :mod:`.subscription`) under a shell of tasks: :mod:`.sender` for the
producer, :mod:`.fetcher` and :mod:`.positions` for the consumer, :mod:`.group` for its membership.

What they promise: every `send` ends in metadata or an error within `delivery_timeout_ms`; with idempotence
(the default) an acknowledged record is in the log at exactly one offset; order within a partition is that
of the `send` calls; a consumer's position moves only with what it handed out.

Errors are the classes of :mod:`kafkalite.protocol.errors` (named after Kafka's) and those of :mod:`.errors`.
No broker code is imported here.
"""

from kafkalite.client import errors
from kafkalite.client.admin import (
    AdminClient,
    ClusterDescription,
    ConfigEntry,
    ConfigResource,
    ConfigResourceType,
    ConfigSource,
    CreatedTopic,
    NewTopic,
    OffsetSpec,
    TopicDescription,
)
from kafkalite.client.consumer import Consumer
from kafkalite.client.delivery import Deliveries, Delivery, PartlySentError, Written
from kafkalite.client.group import RebalanceListener
from kafkalite.client.producer import Producer
from kafkalite.client.records import (
    ConsumerRecord,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    RecordColumns,
    RecordMetadata,
)
from kafkalite.common import TopicPartition

__all__ = [
    "AdminClient",
    "ClusterDescription",
    "ConfigEntry",
    "ConfigResource",
    "ConfigResourceType",
    "ConfigSource",
    "Consumer",
    "ConsumerRecord",
    "CreatedTopic",
    "Deliveries",
    "Delivery",
    "NewTopic",
    "OffsetAndMetadata",
    "OffsetAndTimestamp",
    "OffsetSpec",
    "PartlySentError",
    "Producer",
    "RebalanceListener",
    "RecordColumns",
    "RecordMetadata",
    "TopicDescription",
    "TopicPartition",
    "Written",
    "errors",
]
