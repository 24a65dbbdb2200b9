"""What can happen to the controller: the events of its queue, as values.

Watches, timers, answers of brokers and API calls only put one of these into the queue; one consumer
takes them apart. Events of API calls carry the future that their caller waits on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from kafkalite.common import BrokerEpoch, BrokerId, TopicPartition
from kafkalite.journal import EventId
from kafkalite.protocol.allocate_producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse
from kafkalite.protocol.controlled_shutdown import ControlledShutdownRequest, ControlledShutdownResponse
from kafkalite.protocol.create_topics import CreateTopicsRequest, CreateTopicsResponse
from kafkalite.protocol.leader_and_isr import LeaderAndIsrResponse
from kafkalite.protocol.stop_replica import StopReplicaRequest, StopReplicaResponse

if TYPE_CHECKING:
    from zk.store import Store


class SessionStarted(msgspec.Struct, frozen=True):
    """The broker registered in a new session: from here on this one counts. Elect."""

    store: Store
    broker_epoch: BrokerEpoch


class SessionLost(msgspec.Struct, frozen=True):
    """The session is over: resign."""

    done: asyncio.Future[None]


class Shutdown(msgspec.Struct, frozen=True):
    """The broker stops: resign, and give `/controller` up."""

    done: asyncio.Future[None]


class ControllerChange(msgspec.Struct, frozen=True):
    """`/controller` was created, changed or deleted."""


class BrokerChange(msgspec.Struct, frozen=True):
    """The children of `/brokers/ids` changed, or one was replaced."""


class BrokerModification(msgspec.Struct, frozen=True):
    """The data of a broker's registration changed."""

    broker: BrokerId


class TopicChange(msgspec.Struct, frozen=True):
    """The children of `/brokers/topics` changed."""


class PartitionModification(msgspec.Struct, frozen=True):
    """The data of a topic's znode changed."""

    topic: str


class TopicDeletion(msgspec.Struct, frozen=True):
    """The children of `/admin/delete_topics` changed."""


class IsrChangeNotification(msgspec.Struct, frozen=True):
    """A leader changed an ISR."""


class LogDirEventNotification(msgspec.Struct, frozen=True):
    """A broker lost a log directory."""


class AutoPreferredReplicaLeaderElection(msgspec.Struct, frozen=True):
    """Time to see whether leaders sit where they should."""


class LeaderAndIsrAnswered(msgspec.Struct, frozen=True):
    """A broker took leader_and_isr, or parts of it."""

    broker: BrokerId
    broker_epoch: BrokerEpoch
    response: LeaderAndIsrResponse
    cause: EventId | None


class StopReplicaAnswered(msgspec.Struct, frozen=True):
    """A broker took stop_replica with deletions in it."""

    broker: BrokerId
    broker_epoch: BrokerEpoch
    request: StopReplicaRequest
    response: StopReplicaResponse
    cause: EventId | None


class CreatedTopics(msgspec.Struct, frozen=True):
    """How creating went: to be answered at once, or when ``wait_for`` can be used."""

    response: CreateTopicsResponse
    wait_for: tuple[TopicPartition, ...]


class CreateTopics(msgspec.Struct, frozen=True):
    request: CreateTopicsRequest
    done: asyncio.Future[CreatedTopics]
    cause: EventId | None


class ControlledShutdown(msgspec.Struct, frozen=True):
    request: ControlledShutdownRequest
    done: asyncio.Future[ControlledShutdownResponse]
    cause: EventId | None


class AllocateProducerIds(msgspec.Struct, frozen=True):
    request: AllocateProducerIdsRequest
    done: asyncio.Future[AllocateProducerIdsResponse]
    cause: EventId | None


ApiEvent: TypeAlias = CreateTopics | ControlledShutdown | AllocateProducerIds

ControllerEvent: TypeAlias = (
    SessionStarted
    | SessionLost
    | Shutdown
    | ControllerChange
    | BrokerChange
    | BrokerModification
    | TopicChange
    | PartitionModification
    | TopicDeletion
    | IsrChangeNotification
    | LogDirEventNotification
    | AutoPreferredReplicaLeaderElection
    | LeaderAndIsrAnswered
    | StopReplicaAnswered
    | ApiEvent
)
