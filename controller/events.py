"""What can happen to the controller: the events of its queue, as values.

Watches, timers, answers of brokers and API calls only put one of these into the queue; one consumer
takes them apart. Events of API calls carry the future that their caller waits on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from kafkalite.common import BrokerEpoch, BrokerId, TopicPartition
from kafkalite.journal import EventId
from kafkalite.protocol.allocate_producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse
from kafkalite.protocol.controlled_shutdown import ControlledShutdownRequest, ControlledShutdownResponse
from kafkalite.protocol.create_topics import CreateTopicsRequest, CreateTopicsResponse
from kafkalite.protocol.leader_and_isr import LeaderAndIsrResponse
from kafkalite.protocol.stop_replica import StopReplicaRequest, StopReplicaResponse

if TYPE_CHECKING:
    from zk.store import Store


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """The broker registered in a new session: from here on this one counts. Elect."""

    store: Store
    broker_epoch: BrokerEpoch


@dataclass(frozen=True, slots=True)
class SessionLost:
    """The session is over: resign."""

    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The broker stops: resign, and give `/controller` up."""

    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class ControllerChange:
    """`/controller` was created, changed or deleted."""


@dataclass(frozen=True, slots=True)
class BrokerChange:
    """The children of `/brokers/ids` changed, or one was replaced."""


@dataclass(frozen=True, slots=True)
class BrokerModification:
    """The data of a broker's registration changed."""

    broker: BrokerId


@dataclass(frozen=True, slots=True)
class TopicChange:
    """The children of `/brokers/topics` changed."""


@dataclass(frozen=True, slots=True)
class PartitionModification:
    """The data of a topic's znode changed."""

    topic: str


@dataclass(frozen=True, slots=True)
class TopicDeletion:
    """The children of `/admin/delete_topics` changed."""


@dataclass(frozen=True, slots=True)
class IsrChangeNotification:
    """A leader changed an ISR."""


@dataclass(frozen=True, slots=True)
class LogDirEventNotification:
    """A broker lost a log directory."""


@dataclass(frozen=True, slots=True)
class AutoPreferredReplicaLeaderElection:
    """Time to see whether leaders sit where they should."""


@dataclass(frozen=True, slots=True)
class LeaderAndIsrAnswered:
    """A broker took leader_and_isr, or parts of it."""

    broker: BrokerId
    broker_epoch: BrokerEpoch
    response: LeaderAndIsrResponse
    cause: EventId | None


@dataclass(frozen=True, slots=True)
class StopReplicaAnswered:
    """A broker took stop_replica with deletions in it."""

    broker: BrokerId
    broker_epoch: BrokerEpoch
    request: StopReplicaRequest
    response: StopReplicaResponse
    cause: EventId | None


@dataclass(frozen=True, slots=True)
class CreatedTopics:
    """How creating went: to be answered at once, or when ``wait_for`` can be used."""

    response: CreateTopicsResponse
    wait_for: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class CreateTopics:
    request: CreateTopicsRequest
    done: asyncio.Future[CreatedTopics]
    cause: EventId | None


@dataclass(frozen=True, slots=True)
class ControlledShutdown:
    request: ControlledShutdownRequest
    done: asyncio.Future[ControlledShutdownResponse]
    cause: EventId | None


@dataclass(frozen=True, slots=True)
class AllocateProducerIds:
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
