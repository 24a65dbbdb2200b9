"""Checks a request to create a topic and turns it into what will be written.

Pure: what exists, who is alive and what configs are valid is handed in. A request gives either
counts (-1: the defaults) or a replica assignment by hand, never both.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from controller.assignment import Candidate, place_replicas
from kafkalite.common import BrokerId
from kafkalite.protocol.create_topics import CreateTopicsTopic
from kafkalite.protocol.errors import (
    InvalidConfigError,
    InvalidReplicaAssignmentError,
    InvalidRequestError,
    InvalidTopicError,
    TopicAlreadyExistsError,
)

MAX_NAME_LENGTH: Final = 249
_NAME: Final = re.compile(r"[a-zA-Z0-9._-]+")

ValidateTopicConfig = Callable[[str, dict[str, str | None]], None]
"""Raises InvalidConfigError (or another BrokerError) for configs that a topic cannot have."""


class NewTopic(msgspec.Struct, frozen=True):
    """A topic about to be created."""

    name: str
    assignment: Mapping[int, tuple[BrokerId, ...]]
    config: Mapping[str, str]

    @property
    def replication_factor(self) -> int:
        return len(self.assignment[0])


def check_name(name: str) -> None:
    """Raise InvalidTopicError unless ``name`` can name a topic."""
    if not name:
        raise InvalidTopicError("a topic's name must not be empty")
    if name in (".", ".."):
        raise InvalidTopicError(f"a topic cannot be named {name!r}")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidTopicError(f"the name has {len(name)} characters; {MAX_NAME_LENGTH} are allowed")
    if _NAME.fullmatch(name) is None:
        raise InvalidTopicError(
            f"the name {name!r} has other characters than ASCII letters, digits, '.', '_' and '-'"
        )


def colliding_topics(name: str, existing: Iterable[str]) -> list[str]:
    """Existing topics whose metric names would be the same, since '.' and '_' are one there."""
    key = name.replace(".", "_")
    return sorted(other for other in existing if other != name and other.replace(".", "_") == key)


def plan_topic(
    wanted: CreateTopicsTopic,
    *,
    existing: Iterable[str],
    being_deleted: Iterable[str],
    candidates: Sequence[Candidate],
    default_partitions: int,
    default_replication_factor: int,
    validate_config: ValidateTopicConfig,
    chance: random.Random,
) -> NewTopic:
    """Return what to write for ``wanted``. Raises the BrokerError that says why it cannot be."""
    check_name(wanted.name)
    names = set(existing)
    if wanted.name in being_deleted:
        raise TopicAlreadyExistsError(f"topic '{wanted.name}' is marked for deletion")
    if wanted.name in names:
        raise TopicAlreadyExistsError(f"topic '{wanted.name}' already exists")
    colliding = colliding_topics(wanted.name, names)
    if colliding:
        raise InvalidTopicError(
            f"topic '{wanted.name}' collides with existing topics: {', '.join(colliding)} "
            "('.' and '_' are the same in names of metrics)"
        )
    if wanted.assignments:
        if wanted.num_partitions != -1 or wanted.replication_factor != -1:
            raise InvalidRequestError(
                "both a replica assignment and a number of partitions or a replication factor are given"
            )
        assignment = _manual_assignment(wanted)
    else:
        assignment = place_replicas(
            candidates,
            default_partitions if wanted.num_partitions == -1 else wanted.num_partitions,
            default_replication_factor if wanted.replication_factor == -1 else wanted.replication_factor,
            chance,
        )
    return NewTopic(wanted.name, assignment, _checked_config(wanted, validate_config))


def _manual_assignment(wanted: CreateTopicsTopic) -> dict[int, tuple[BrokerId, ...]]:
    assignment: dict[int, tuple[BrokerId, ...]] = {}
    for item in wanted.assignments:
        brokers = tuple(BrokerId(broker) for broker in item.broker_ids)
        if item.partition_index in assignment:
            raise InvalidReplicaAssignmentError(f"partition {item.partition_index} is assigned twice")
        if not brokers:
            raise InvalidReplicaAssignmentError(f"partition {item.partition_index} has no replicas")
        if len(set(brokers)) != len(brokers):
            raise InvalidReplicaAssignmentError(
                f"partition {item.partition_index} names a broker twice: {list(brokers)}"
            )
        if any(broker < 0 for broker in brokers):
            raise InvalidReplicaAssignmentError(
                f"partition {item.partition_index} names a negative broker id: {list(brokers)}"
            )
        assignment[item.partition_index] = brokers
    if sorted(assignment) != list(range(len(assignment))):
        raise InvalidReplicaAssignmentError(
            f"partitions must be numbered from 0 without gaps, not {sorted(assignment)}"
        )
    if len({len(brokers) for brokers in assignment.values()}) != 1:
        raise InvalidReplicaAssignmentError("all partitions must have the same number of replicas")
    return dict(sorted(assignment.items()))


def _checked_config(wanted: CreateTopicsTopic, validate_config: ValidateTopicConfig) -> dict[str, str]:
    config: dict[str, str | None] = {}
    for item in wanted.configs:
        if item.name in config:
            raise InvalidConfigError(f"config {item.name} is given twice")
        config[item.name] = item.value
    missing = sorted(name for name, value in config.items() if value is None)
    if missing:
        raise InvalidConfigError(f"no value for {', '.join(missing)}")
    validate_config(wanted.name, config)
    return {name: value for name, value in config.items() if value is not None}
