"""A witness notes what a group member and its coordinator tell each other, and not what it cannot know."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable

import pytest

from kafkalite.checker.checker import Checker
from kafkalite.checker.history import (
    Assigned,
    CommitAccepted,
    CommitRefused,
    CommitSent,
    CommittedAsked,
    CommittedRead,
    Disowned,
    HistoryEvent,
    Joined,
    Revoked,
)
from kafkalite.checker.promise import Faults
from kafkalite.client import Consumer, errors
from kafkalite.common import TopicPartition
from kafkalite.protocol.message import Message
from kafkalite.protocol.record_batch import encode_batch
from kafkalite.torture.witness import Witness
from tests.simulation.loop import VirtualClock, run_virtual
from tests.support.fake_broker import Fault
from tests.support.fake_groups import GroupCluster

FIRST = TopicPartition("t", 0)
Story = Callable[[GroupCluster, Consumer], Awaitable[None]]


def overhear(story: Story) -> list[HistoryEvent]:
    """The history of a member that has got its two partitions and read a record."""
    history: list[HistoryEvent] = []

    async def main() -> None:
        cluster = GroupCluster()
        cluster.create_topic("t", 2)
        cluster.append(FIRST, encode_batch([b"one", b"two"], timestamps=1000))
        clock = VirtualClock(asyncio.get_running_loop())
        witness = Witness(
            cluster, consumer="a", note=history.append, at=clock.monotonic, numbers=itertools.count(1)
        )
        consumer = Consumer(
            bootstrap_servers="fake:9001",
            group_id="g",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            transport=witness,
            clock=clock,
            chance=random.Random(1),
        )
        async with asyncio.timeout(300), consumer:
            consumer.subscribe(["t"], listener=witness.listener("g"))
            await consumer.getone()
            await story(cluster, consumer)

    run_virtual(main())
    return history


def kinds(history: list[HistoryEvent]) -> list[type[HistoryEvent]]:
    return [type(event) for event in history]


def test_a_life_in_a_group_is_noted_from_the_join_to_the_end() -> None:
    async def story(cluster: GroupCluster, consumer: Consumer) -> None:
        await consumer.commit({FIRST: 1})
        assert await consumer.committed(FIRST) == 1

    history = overhear(story)
    joined, assigned, asked, read, sent, accepted, *rest = history
    assert isinstance(joined, Joined)
    assert isinstance(assigned, Assigned)
    assert (assigned.member, assigned.generation) == (joined.member, joined.generation)
    assert assigned.partitions == [("t", 0), ("t", 1)]
    assert isinstance(asked, CommittedAsked)
    assert isinstance(read, CommittedRead)
    assert read.number == asked.number
    assert read.offsets == [("t", 0, -1), ("t", 1, -1)]
    assert isinstance(sent, CommitSent)
    assert (sent.member, sent.generation, sent.offsets) == (joined.member, joined.generation, [("t", 0, 1)])
    assert isinstance(accepted, CommitAccepted)
    assert (accepted.number, accepted.partitions) == (sent.number, [("t", 0)])
    assert kinds(rest) == [CommittedAsked, CommittedRead, Revoked]
    checker = Checker({}, Faults.TAME)
    checker.take_all(history)
    verdict = checker.verdict()
    assert verdict.is_kept
    assert (verdict.generations, verdict.commits) == (1, 1)


def test_a_commit_of_who_was_thrown_out_is_refused_for_certain() -> None:
    async def story(cluster: GroupCluster, consumer: Consumer) -> None:
        cluster.expel(next(iter(cluster.group.members)))
        with pytest.raises(errors.CommitFailedError):
            await consumer.commit({FIRST: 1})
        while (await consumer.getone()).offset > 0:
            pass  # Until it has the partition again, from its beginning.

    history = overhear(story)
    (refused,) = (event for event in history if isinstance(event, CommitRefused))
    assert (refused.partitions, refused.error) == ([("t", 0)], "UNKNOWN_MEMBER_ID")
    assert kinds(history).count(Disowned) == 1
    assert kinds(history).count(Assigned) == 2


def test_of_a_commit_without_an_answer_nothing_is_known() -> None:
    async def story(cluster: GroupCluster, consumer: Consumer) -> None:
        faults = iter([Fault.LOSE_ANSWER])

        def hook(name: str, node: int, request: Message) -> Fault:
            return next(faults, Fault.NONE) if name == "offset_commit" else Fault.NONE

        cluster.hook = hook
        await consumer.commit({FIRST: 1})

    commits = [
        event for event in overhear(story) if isinstance(event, CommitSent | CommitAccepted | CommitRefused)
    ]
    first, second, accepted = commits
    assert isinstance(first, CommitSent)
    assert isinstance(second, CommitSent)
    assert isinstance(accepted, CommitAccepted)
    assert accepted.number == second.number != first.number
