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
No broker code is imported here, and each name's module only when the name is first used (PEP 562): a tool
that only describes topics starts without the producer and the consumer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
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
    from kafkalite.client.group.listener import RebalanceListener
    from kafkalite.client.producer import Producer
    from kafkalite.client.records import (
        ConsumerRecord,
        OffsetAndMetadata,
        OffsetAndTimestamp,
        RecordColumns,
        RecordMetadata,
    )
    from kafkalite.common import TopicPartition

_HOMES: Final = {
    "AdminClient": "kafkalite.client.admin",
    "ClusterDescription": "kafkalite.client.admin",
    "ConfigEntry": "kafkalite.client.admin",
    "ConfigResource": "kafkalite.client.admin",
    "ConfigResourceType": "kafkalite.client.admin",
    "ConfigSource": "kafkalite.client.admin",
    "Consumer": "kafkalite.client.consumer",
    "ConsumerRecord": "kafkalite.client.records",
    "CreatedTopic": "kafkalite.client.admin",
    "Deliveries": "kafkalite.client.delivery",
    "Delivery": "kafkalite.client.delivery",
    "NewTopic": "kafkalite.client.admin",
    "OffsetAndMetadata": "kafkalite.client.records",
    "OffsetAndTimestamp": "kafkalite.client.records",
    "OffsetSpec": "kafkalite.client.admin",
    "PartlySentError": "kafkalite.client.delivery",
    "Producer": "kafkalite.client.producer",
    "RebalanceListener": "kafkalite.client.group.listener",
    "RecordColumns": "kafkalite.client.records",
    "RecordMetadata": "kafkalite.client.records",
    "TopicDescription": "kafkalite.client.admin",
    "TopicPartition": "kafkalite.common",
    "Written": "kafkalite.client.delivery",
    "errors": "kafkalite.client.errors",
}
"""Where each name lives."""

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


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(home)
    found = globals()[name] = module if name == "errors" else getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
