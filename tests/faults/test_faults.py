"""What people do to a cluster, and that no acknowledged record suffers from it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kafkalite.client import AdminClient

from .conftest import SESSION_TIMEOUT_MS, FaultCluster
from .workload import Workload, kept_its_word

pytestmark = pytest.mark.timeout(240)

LONGER_THAN_A_SESSION_S = 2.5 * SESSION_TIMEOUT_MS / 1000
"""A fault that lasts: how long it holds is the fault itself, not a wait for a condition."""


async def _verified(cluster: FaultCluster, workload: Workload) -> None:
    await cluster.is_whole(workload.topic)
    assert len(workload.acknowledged) > 0
    await kept_its_word(workload)


async def test_leader_killed_while_records_are_sent(cluster: FaultCluster) -> None:
    topic = await cluster.create_topic()
    victim = await cluster.leader(topic)
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(300)
        await cluster.kill(f"broker-{victim}")
        await workload.acknowledges(300)
        assert await cluster.leader(topic) != victim
        (answer,) = [one for one in cluster.why(topic, 0).chains if one.question == "leader"]
        told = [link.type for link in answer.links]
        ends = {"BrokerFailed", "BrokerFoundAbsent"}  # It depends on whether it was the controller too.
        assert told[0] == "LeaderElected", told
        assert ends & set(told), f"the chain does not lead to the end of broker {victim}: {told}"
        await cluster.start(f"broker-{victim}")
        await workload.acknowledges(300)
    await _verified(cluster, workload)


async def test_why_asks_the_brokers_that_answer(cluster: FaultCluster) -> None:
    """With addresses alone: what the journals of the living say, and who did not answer."""
    topic = await cluster.create_topic(partitions=1)
    leader, controller = await cluster.leader(topic), await cluster.controller()
    victim = next(id for id in (1, 2, 3) if id not in (leader, controller))
    await cluster.kill(f"broker-{victim}")
    await cluster.until_why(topic, 0, lambda answer: victim not in answer.isr)
    command = ["-m", "kafkalite.cli", "why", f"{topic}/0", "--output", "json", "--bootstrap-server"]
    asked = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cluster.bootstrap_servers,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asked.communicate()
    assert asked.returncode == 0, err
    answer = json.loads(out)
    assert (answer["state"], answer["leader"]) == ("online", leader)
    assert f"broker {victim} is not in the ISR" in {one["about"] for one in answer["answers"]}
    assert err.decode().count("does not answer") == 1
    await cluster.start(f"broker-{victim}")


async def test_controller_killed(cluster: FaultCluster) -> None:
    topic = await cluster.create_topic()
    victim = await cluster.controller()
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(300)
        await cluster.kill(f"broker-{victim}")
        await workload.acknowledges(600)
        await cluster.another_controller(than=victim)
        await cluster.start(f"broker-{victim}")
    await _verified(cluster, workload)


async def test_controller_and_leader_killed_and_the_leader_is_back_at_once_without_its_tail(
    cluster: FaultCluster,
) -> None:
    """The restart that nobody saw: the leader is back within its session, its unsynced tail is gone."""
    topic = await cluster.create_topic(partitions=1)
    leader, controller = await cluster.leader(topic), await cluster.controller()
    async with Workload(cluster.bootstrap_servers, topic, 1).running() as workload:
        await workload.acknowledges(300)
        await cluster.kill(*{f"broker-{leader}", f"broker-{controller}"})
        _cut_tail(cluster.data(leader) / f"{topic}-0")
        await cluster.start(f"broker-{leader}")
        await workload.acknowledges(300)
        await cluster.start(f"broker-{controller}")
    await _verified(cluster, workload)


async def test_zombie_leader_acknowledges_nothing_that_is_lost(cluster: FaultCluster) -> None:
    """acks=1, the weakest promise: a leader paused past its session has nothing to say afterwards."""
    topic = await cluster.create_topic(partitions=1)
    victim = await cluster.leader(topic)
    async with (
        Workload(cluster.bootstrap_servers, topic, 1).running() as safe,
        Workload(cluster.bootstrap_servers, topic, 1, acks=1).running() as hasty,
    ):
        await safe.acknowledges(100)
        await hasty.acknowledges(100)
        await cluster.pause(f"broker-{victim}")
        await asyncio.sleep(LONGER_THAN_A_SESSION_S)
        # Only now: answers that it sent before it was paused may still have been on their way, and
        # an acks=1 record that no follower has goes with its leader.
        before = dict(hasty.acknowledged)
        # Asked while it is paused: right afterwards it may still tell whoever asks that it leads.
        assert await cluster.leader(topic) != victim
        await cluster.resume(f"broker-{victim}")
        await hasty.acknowledges(100)
    await cluster.is_whole(topic)
    after = {place: value for place, value in hasty.acknowledged.items() if before.get(place) != value}
    from .workload import read_all

    found = await read_all(cluster.bootstrap_servers, topic, 1)
    lost = {place: value for place, value in after.items() if found.get(place) != value}
    assert not lost, f"acknowledged by a zombie and lost: {lost}"
    assert all(found.get(place) == value for place, value in safe.acknowledged.items())


async def test_one_zookeeper_of_three_killed(cluster: FaultCluster) -> None:
    topic = await cluster.create_topic()
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        for name in cluster.zookeepers:
            await workload.acknowledges(200)
            await cluster.kill(name)
            await workload.acknowledges(200)
            await cluster.start(name)
    await _verified(cluster, workload)


@pytest.mark.parametrize("away_s", [SESSION_TIMEOUT_MS / 1000 / 2, LONGER_THAN_A_SESSION_S])
async def test_the_whole_ensemble_away_and_back(cluster: FaultCluster, away_s: float) -> None:
    topic = await cluster.create_topic()
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(200)
        await cluster.kill(*cluster.zookeepers)
        await asyncio.sleep(away_s)
        await cluster.start(*cluster.zookeepers)
        await workload.acknowledges(500)
    await _verified(cluster, workload)


async def test_everything_killed_at_once_and_started_again(cluster: FaultCluster) -> None:
    topic = await cluster.create_topic()
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(500)
        await cluster.kill(*cluster.brokers, *cluster.zookeepers)
        await cluster.start(*cluster.zookeepers)
        await cluster.start(*cluster.brokers)
        await workload.acknowledges(300)
    await _verified(cluster, workload)


@pytest.mark.parametrize("way", ["kill", pytest.param("pause", marks=pytest.mark.soak)])
async def test_zookeepers_leader_and_a_follower(cluster: FaultCluster, way: str) -> None:
    topic = await cluster.create_topic()
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        for mode in ("leader", "follower"):
            await workload.acknowledges(200)
            victim = await cluster.zookeeper_that_is(mode)
            await (cluster.kill(victim) if way == "kill" else cluster.pause(victim))
            assert await cluster.state(victim) == ("stopped" if way == "kill" else "paused")
            await asyncio.sleep(LONGER_THAN_A_SESSION_S)
            await workload.acknowledges(200)
            await (cluster.start(victim) if way == "kill" else cluster.resume(victim))
    assert not workload.failed
    await _verified(cluster, workload)


@pytest.mark.soak
async def test_zookeepers_quorum_is_away_for_half_a_minute(cluster: FaultCluster) -> None:
    """One ZooKeeper of three can do nothing; acks=all goes on where the ISR stays as it is."""
    topic = await cluster.create_topic()
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(200)
        await cluster.kill(*cluster.zookeepers[:2])
        await asyncio.sleep(SESSION_TIMEOUT_MS / 1000)
        before = len(workload.acknowledged)
        await asyncio.sleep(27)
        assert len(workload.acknowledged) > before + 200, "acks=all needs no ZooKeeper, but it stood still"
        await cluster.start(*cluster.zookeepers[:2])
        await workload.acknowledges(200)
    await _verified(cluster, workload)
    assert any(event.type == "LeaseExpired" for broker in (1, 2, 3) for event in cluster.events(broker))


async def test_paused_follower_leaves_the_isr_and_comes_back(cluster: FaultCluster) -> None:
    topic = await cluster.create_topic(partitions=1)
    leader = await cluster.leader(topic)
    victim = next(id for id in (1, 2, 3) if id != leader)
    async with Workload(cluster.bootstrap_servers, topic, 1).running() as workload:
        await workload.acknowledges(200)
        await cluster.pause(f"broker-{victim}")
        await cluster.until_why(topic, 0, lambda answer: victim not in answer.isr)
        await workload.acknowledges(200)
        (about,) = [one for one in cluster.why(topic, 0).chains if one.question == "isr"]
        assert about.about == f"broker {victim} is not in the ISR"
        # Where the follower ruled, its successor finds it absent.
        assert {"IsrShrunk", "BrokerFailed", "BrokerFoundAbsent"} & {link.type for link in about.links}
        await cluster.resume(f"broker-{victim}")
        await cluster.until_why(topic, 0, lambda answer: victim in answer.isr)
    assert not workload.failed
    await _verified(cluster, workload)


async def test_rolling_restart_moves_leaders_first(cluster: FaultCluster) -> None:
    topic = await cluster.create_topic()
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        for name in cluster.brokers:
            await workload.acknowledges(200)
            await cluster.stop(name)
            async with AdminClient(bootstrap_servers=cluster.bootstrap_servers) as admin:
                (description,) = await admin.describe_topics([topic])
            assert all(one.leader is not None for one in description.partitions)
            await cluster.start(name)
            await cluster.is_whole(topic)
    assert not workload.failed
    await _verified(cluster, workload)


async def test_a_disk_out_of_space(cluster_with_a_small_disk: FaultCluster) -> None:
    """The broker whose only log directory is full ends; the others keep every record and go on."""
    cluster = cluster_with_a_small_disk
    topic = await cluster.create_topic(partitions=3)
    filled = b"x" * 50_000
    async with Workload(cluster.bootstrap_servers, topic, 3, padding=filled).running() as workload:
        async with asyncio.timeout(60):
            while await cluster.state("broker-1") != "stopped":
                await workload.acknowledges(50)
        await workload.acknowledges(100)
    await kept_its_word(workload)
    assert not (cluster.data(1) / ".kafka_cleanshutdown").exists()
    await cluster.enlarge_disk(1)
    await cluster.start("broker-1")
    await _verified(cluster, workload)


async def test_a_write_fails(cluster: FaultCluster) -> None:
    """A disk that takes no more (here: a limit on the size of files) ends the broker, and only it."""
    topic = await cluster.create_topic(partitions=3)
    async with Workload(cluster.bootstrap_servers, topic, 3, padding=b"x" * 2000).running() as workload:
        await workload.acknowledges(100)
        cluster.limit_file_size("broker-2", 1 << 20)
        async with asyncio.timeout(60):
            while await cluster.state("broker-2") != "stopped":
                await workload.acknowledges(50)
        assert "LogDirFailed" in {event.type for event in cluster.events(2)}
        await cluster.start("broker-2")
        await workload.acknowledges(100)
    await _verified(cluster, workload)


def _cut_tail(directory: Path) -> None:
    """Lose what a machine loses that was not told to sync: here, the last third of the last segment."""
    segment = max(directory.glob("*.log"))
    size = segment.stat().st_size
    assert size > 0, f"{segment} is empty: there is no tail to lose"
    os.truncate(segment, size * 2 // 3)
