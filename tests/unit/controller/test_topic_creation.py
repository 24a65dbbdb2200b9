"""What can be created, and what is said about the rest."""

from __future__ import annotations

import random

import pytest

from controller.assignment import Candidate
from controller.topic_creation import NewTopic, plan_topic
from kafkalite.common import BrokerId
from kafkalite.protocol.create_topics import CreateTopicsAssignment, CreateTopicsConfig, CreateTopicsTopic
from kafkalite.protocol.errors import (
    BrokerError,
    InvalidConfigError,
    InvalidPartitionsError,
    InvalidReplicaAssignmentError,
    InvalidReplicationFactorError,
    InvalidRequestError,
    InvalidTopicError,
    TopicAlreadyExistsError,
)


def plan(
    name: str = "t",
    partitions: int = -1,
    factor: int = -1,
    assignments: list[tuple[int, list[int]]] | None = None,
    configs: list[tuple[str, str | None]] | None = None,
) -> NewTopic:
    return plan_topic(
        CreateTopicsTopic(
            name=name,
            num_partitions=partitions,
            replication_factor=factor,
            assignments=[
                CreateTopicsAssignment(partition_index=p, broker_ids=b) for p, b in assignments or []
            ],
            configs=[CreateTopicsConfig(name=n, value=v) for n, v in configs or []],
        ),
        existing=["there", "a.b"],
        being_deleted=["going"],
        candidates=[Candidate(BrokerId(b)) for b in (1, 2, 3)],
        default_partitions=4,
        default_replication_factor=2,
        validate_config=lambda topic, config: None,
        chance=random.Random(0),
    )


def test_counts_of_minus_1_are_the_defaults() -> None:
    new = plan()
    assert (len(new.assignment), new.replication_factor) == (4, 2)
    assert len(plan(partitions=7, factor=3).assignment) == 7


def test_an_assignment_by_hand_is_taken_as_it_is() -> None:
    new = plan(assignments=[(1, [9, 3]), (0, [3, 9])], configs=[("a", "b")])
    assert new.assignment == {0: (3, 9), 1: (9, 3)}
    assert new.config == {"a": "b"}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", InvalidTopicError),
        (".", InvalidTopicError),
        ("..", InvalidTopicError),
        ("x" * 250, InvalidTopicError),
        ("sl/ash", InvalidTopicError),
        ("umläut", InvalidTopicError),
        ("line\n", InvalidTopicError),
        ("a_b", InvalidTopicError),  # Collides with a.b in names of metrics.
        ("there", TopicAlreadyExistsError),
        ("going", TopicAlreadyExistsError),
    ],
)
def test_refused_names(name: str, error: type[BrokerError]) -> None:
    with pytest.raises(error):
        plan(name)


def test_the_longest_name_is_allowed() -> None:
    assert plan("x" * 249).name == "x" * 249


@pytest.mark.parametrize(
    ("partitions", "factor", "error"),
    [
        (0, 1, InvalidPartitionsError),
        (-2, 1, InvalidPartitionsError),
        (1, 0, InvalidReplicationFactorError),
        (1, 4, InvalidReplicationFactorError),
    ],
)
def test_refused_counts(partitions: int, factor: int, error: type[BrokerError]) -> None:
    with pytest.raises(error):
        plan(partitions=partitions, factor=factor)


@pytest.mark.parametrize(
    "assignments",
    [
        [(0, [1]), (2, [1])],
        [(1, [1])],
        [(0, [1]), (0, [2])],
        [(0, [1, 1])],
        [(0, [])],
        [(0, [1, 2]), (1, [1])],
        [(0, [-1])],
    ],
)
def test_refused_assignments(assignments: list[tuple[int, list[int]]]) -> None:
    with pytest.raises(InvalidReplicaAssignmentError):
        plan(assignments=assignments)


def test_counts_and_assignment_exclude_each_other() -> None:
    with pytest.raises(InvalidRequestError):
        plan(partitions=1, assignments=[(0, [1])])


@pytest.mark.parametrize("configs", [[("a", "1"), ("a", "2")], [("a", None)]])
def test_refused_configs(configs: list[tuple[str, str | None]]) -> None:
    with pytest.raises(InvalidConfigError):
        plan(configs=configs)
