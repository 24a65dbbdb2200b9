"""Every link of a chain of causes: who failed, and that each failure explains its own consequences."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kafkalite.common import TopicPartition
from kafkalite.journal import Event
from tests.support.controllers import Cluster, LoopClock
from tests.support.zookeeper_memory import MemoryZooKeeper

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    server = MemoryZooKeeper(LoopClock())
    async with Cluster(lambda: server.connect(), LoopClock()) as cluster:
        yield cluster


def chain(cluster: Cluster, event: Event) -> list[str]:
    """The types from ``event`` to its root."""
    events = {e.id: e for member in cluster.members.values() for e in member.journal.events()}
    found = [event]
    while (cause := found[-1].cause) is not None:
        found.append(events[cause])
    return [one.type for one in found]


async def test_two_brokers_that_fail_at_once_are_not_blamed_for_each_other(cluster: Cluster) -> None:
    await cluster.start(1, 2, 3, 4)
    await cluster.create("t", {0: (1, 3, 4), 1: (3, 1, 4)})
    await cluster.settled({T0, T1})
    cluster[1].lease = False  # Until both are gone the controller does nothing: it learns of them at once.
    for id in (3, 4):
        await cluster[id].leave()
    cluster[1].lease = True
    await cluster.until(lambda: len(cluster.events("BrokerFailed")) == 2)
    failures = {e.id: e.facts["broker"] for e in cluster.events("BrokerFailed")}
    await cluster.until(lambda: len(cluster.events("ReplicaWentOffline")) == 2)
    for event in cluster.events("ReplicaWentOffline"):
        assert event.cause is not None
        assert failures[event.cause] == event.facts["replica"], "\n".join(cluster.story())
    (elected,) = [e for e in cluster.events("LeaderElected") if e.facts["strategy"] == "offline"]
    assert elected.cause is not None
    assert failures[elected.cause] == elected.facts["old_leader"] == 3


async def test_an_election_at_fail_over_leads_back_to_the_vacancy(cluster: Cluster) -> None:
    """The controller led the partition too: its successor finds it absent."""
    await cluster.start(1, 2, 3)
    await cluster.create("t", {0: (1, 2, 3)})
    await cluster.settled({T0})
    await cluster[1].leave()
    await cluster.until(lambda: [e for e in cluster.events("LeaderElected") if e.facts["leader_epoch"] > 0])
    elected = cluster.events("LeaderElected")[-1]
    assert chain(cluster, elected)[-5:] == [
        *("LeaderElected", "BrokerFoundAbsent", "ControllerElected"),
        *("ControllerChanged", "ZnodeChanged"),
    ]
