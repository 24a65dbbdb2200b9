"""What a user of the compose file relies on, and what a teacher does to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
from datetime import datetime
from typing import Any

import pytest

from kafkalite.client import Consumer, Producer
from kafkalite.compose.project import compose_command
from tests.faults.workload import Workload, kept_its_word

from .conftest import COMPOSE, PROJECT, ComposeCluster

pytestmark = pytest.mark.timeout(300)


# What is there


def test_images_are_small_and_run_without_root(engine: Any) -> None:
    image = engine.images.get("kafkalite/broker")
    size = image.attrs["Size"] / 1e6
    print(f"\nbroker image: {size:.0f} MB")
    assert size < 300
    for name in ("kafkalite/broker", "kafkalite/zookeeper"):
        assert engine.images.get(name).attrs["Config"]["User"] not in ("", "0", "root")


def test_comes_up_whole_and_listens_on_loopback_only(cluster: ComposeCluster, engine: Any) -> None:
    said = cluster.ps()
    assert said["state"] == "healthy"
    assert {row["service"] for row in said["services"]} == {
        *(f"zookeeper-{n}" for n in (1, 2, 3)),
        *(f"broker-{n}" for n in (1, 2, 3)),
        "tools",
    }
    for n in (1, 2, 3):
        container = engine.containers.get(cluster.container(f"broker-{n}"))
        bindings = container.attrs["NetworkSettings"]["Ports"]
        published = [one for found in bindings.values() if found for one in found]
        assert [one["HostIp"] for one in published] == ["127.0.0.1"]
        assert container.attrs["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        assert container.attrs["HostConfig"]["Memory"] > 0
        print(f"\nbroker-{n}: {_start_to_registered_ms(cluster, container, n)} ms from start to registered")


def test_records_flow_between_this_machine_and_the_containers(cluster: ComposeCluster) -> None:
    inside = ("--bootstrap-server", "broker-1:9092", "--topic", "orders")
    cluster.in_tools("kafka-topics", "--create", *inside, "--partitions", "3")
    cluster.in_tools("kafka-console-producer", *inside, stdin="from inside\n")

    async def from_here() -> set[bytes | None]:
        async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            await producer.send_and_wait("orders", b"from outside")
        async with Consumer(
            "orders", bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer:
            return {(await consumer.getone()).value for _ in range(2)}

    assert asyncio.run(from_here()) == {b"from inside", b"from outside"}
    said = cluster.in_tools("kafka-console-consumer", *inside, "--from-beginning", "--max-messages", "2")
    assert sorted(said.split("\n")[:2]) == ["from inside", "from outside"]


def test_an_unknown_setting_is_refused_with_a_suggestion(engine: Any) -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", "-e", "KAFKALITE_LOG_RETENTION_MSS=1", "kafkalite/broker"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "KAFKALITE_LOG_RETENTION_MSS" in done.stderr
    assert "did you mean KAFKALITE_LOG_RETENTION_MS?" in done.stderr


@pytest.mark.parametrize("overlays", [[], ["small"], ["five"], ["digest"], ["tools"], ["five", "tools"]])
def test_files_are_valid(project: ComposeCluster, overlays: list[str]) -> None:
    files = [part for one in ["docker-compose", *overlays] for part in ("-f", str(COMPOSE / f"{one}.yml"))]
    done = subprocess.run(
        [*compose_command(), *files, "config", "-q"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


# What is done to it


async def test_leader_killed(cluster: ComposeCluster) -> None:
    topic = await cluster.create_topic()
    victim = await cluster.leader(topic)
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(100)
        said = await cluster.run("kill", f"broker-{victim}")
        moved = [move for move in said["answer"]["moves"] if move["partition"] == f"{topic}-0"]
        assert [move["from"] for move in moved] == [victim]
        assert moved[0]["to"] == await cluster.leader(topic)
        assert moved[0]["why"][-1].startswith("ZooKeeper deleted /")
        await workload.acknowledges(100)
        await cluster.run("heal")
    await _verified(cluster, workload)


async def test_controller_killed(cluster: ComposeCluster) -> None:
    topic = await cluster.create_topic()
    victim = await cluster.controller()
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(100)
        said = await cluster.run("kill", f"broker-{victim}")
        assert said["answer"]["controller"] == {"before": victim, "after": await cluster.controller()}
        assert said["answer"]["controller"]["after"] != victim
        await workload.acknowledges(100)
        await cluster.run("heal")
    await _verified(cluster, workload)


async def test_a_zookeeper_killed(cluster: ComposeCluster) -> None:
    topic = await cluster.create_topic()
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(100)
        said = await cluster.run("kill", "zookeeper-1")
        assert said["answer"]["moves"] == []
        await workload.acknowledges(100)
        await cluster.run("heal")
    await _verified(cluster, workload)


async def test_leader_paused_past_its_session(cluster: ComposeCluster) -> None:
    topic = await cluster.create_topic()
    victim = await cluster.leader(topic)
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(100)
        await cluster.run("pause", f"broker-{victim}")
        assert cluster.ps()["state"] == "degraded"
        await workload.acknowledges(100)
        await cluster.run("resume", f"broker-{victim}")
    await _verified(cluster, workload)


@pytest.mark.parametrize("away_from", [pytest.param("zookeeper", marks=pytest.mark.soak), "all"])
async def test_leader_cut_off(cluster: ComposeCluster, away_from: str) -> None:
    topic = await cluster.create_topic()
    victim = await cluster.leader(topic)
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(100)
        said = await cluster.run("partition", f"broker-{victim}", "--from", away_from)
        assert {move["from"] for move in said["answer"]["moves"]} >= {victim}
        faults = {row["service"]: row["faults"] for row in cluster.ps()["services"]}
        assert "cut off from zookeeper" in faults[f"broker-{victim}"]
        await workload.acknowledges(100)
        await cluster.run("heal")
    await _verified(cluster, workload)


@pytest.mark.soak
async def test_follower_cut_off_from_the_brokers_leaves_the_isr(cluster: ComposeCluster) -> None:
    """It keeps its session, so no election: only the leader notices, when its lag gets too long."""
    topic = await cluster.create_topic(partitions=1)
    leader = await cluster.leader(topic)
    victim = next(id for id in (1, 2, 3) if id != leader)
    async with Workload(cluster.bootstrap_servers, topic, 1).running() as workload:
        await workload.acknowledges(100)
        said = await cluster.run("partition", f"broker-{victim}", "--from", "brokers")
        shrunk = [one for one in said["answer"]["events"] if one["type"] == "IsrShrunk"]
        assert any(one["topic"] == topic and victim not in one["facts"]["isr"] for one in shrunk)
        await workload.acknowledges(100)
        await cluster.run("heal")
    await _verified(cluster, workload)


async def test_rolling_restart_loses_no_write(cluster: ComposeCluster) -> None:
    topic = await cluster.create_topic()
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(100)
        controller = await cluster.controller()
        said = await cluster.run("rolling-restart")
        await workload.acknowledges(100)
    assert not workload.failed
    order = [proof.partition(":")[0] for proof in said["proofs"]]
    assert sorted(order) == ["broker-1", "broker-2", "broker-3"]
    assert order[-1] == f"broker-{controller}"
    assert all("ended by itself (exit code 0)" in proof for proof in said["proofs"])
    asked = {one["facts"]["stopping_broker"] for one in _of_type(said, "ControlledShutdownStarted")}
    assert asked == {1, 2, 3}
    await _verified(cluster, workload)


async def test_slowed_down_and_healed(cluster: ComposeCluster) -> None:
    said = await cluster.run("slow", "broker-2", "--cpus", "0.2")
    assert said["proofs"] == ["broker-2: the kernel gives it 0.2 CPUs at most"]
    assert "held to 0.2 CPUs" in str(cluster.ps()["services"])
    healed = await cluster.run("heal")
    assert "broker-2: it has its 2 CPUs again" in healed["proofs"]
    assert cluster.ps()["state"] == "healthy"


async def test_delayed_packets_or_a_plain_word_why_not(cluster: ComposeCluster) -> None:
    ran = await asyncio.to_thread(cluster.compose, "slow", "broker-2", "--delay-ms", "50", expect=None)
    if ran.code == 6:
        assert "no netem" in ran.err
        return
    assert "took" in ran.text
    healed = await cluster.run("heal", "broker-2")
    assert "broker-2: its packets are not delayed any more" in healed["proofs"]


async def test_down_and_up_again_keeps_the_data(cluster: ComposeCluster) -> None:
    topic = await cluster.create_topic()
    async with Workload(cluster.bootstrap_servers, topic, 3).running() as workload:
        await workload.acknowledges(300)
    await asyncio.to_thread(cluster.compose, "down")
    assert cluster.compose("ps", expect=3).out == b""
    await asyncio.to_thread(cluster.compose, "up", "--with", "tools")
    await _verified(cluster, workload)


def test_a_name_that_is_none(cluster: ComposeCluster) -> None:
    ran = cluster.compose("kill", "broker-9", expect=3)
    assert "broker-9" in ran.err
    assert "broker-1" in ran.err


# Variants


@pytest.mark.soak
async def test_five_brokers_and_three_again(cluster: ComposeCluster) -> None:
    await cluster.run("scale", "5")
    assert _racks(cluster) == {1: "rack-a", 2: "rack-b", 3: "rack-c", 4: "rack-a", 5: "rack-b"}
    cluster.in_tools(
        *("kafka-topics", "--bootstrap-server", "broker-1:9092", "--create", "--topic", "on-five"),
        *("--replica-assignment", "4:5:1"),
    )
    refused = cluster.compose("scale", "0", expect=6)
    assert "1 to 5" in refused.err
    await cluster.run("scale", "3")
    assert {row["service"] for row in cluster.ps()["services"]} >= {"broker-3"}
    assert "broker-4" not in str(cluster.ps()["services"])


@pytest.mark.soak
def test_digest_lets_nobody_in_without_credentials(project: ComposeCluster) -> None:
    project.compose("down", "--volumes")
    project.compose("up", "--with", "digest")
    try:
        stranger = subprocess.run(
            [
                *("docker", "run", "--rm", "--network", f"{PROJECT}_zookeeper"),
                *("-e", "KAFKALITE_ZOOKEEPER_CONNECT=zookeeper-1:2181", "-e", "KAFKALITE_BROKER_ID=9"),
                "kafkalite/broker",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert stranger.returncode == 1
        (line,) = stranger.stderr.splitlines()
        assert line.startswith("kafkalite broker: zookeeper.connect=zookeeper-1:2181: ")
        assert project.ps()["state"] == "healthy"
    finally:
        project.compose("down", "--volumes")
        project.compose("up", "--with", "tools")


@pytest.mark.soak
async def test_small(project: ComposeCluster, engine: Any) -> None:
    await asyncio.to_thread(project.compose, "down", "--volumes")
    await asyncio.to_thread(project.compose, "up", "--with", "small")
    try:
        limits = [
            one.attrs["HostConfig"]["Memory"]
            for one in engine.containers.list(filters={"label": f"com.docker.compose.project={PROJECT}"})
        ]
        assert len(limits) == 2
        assert sum(limits) <= 1 << 30
        assert project.ps()["state"] == "healthy"
    finally:
        await asyncio.to_thread(project.compose, "down", "--volumes")
        await asyncio.to_thread(project.compose, "up", "--with", "tools")


async def _verified(cluster: ComposeCluster, workload: Workload) -> None:
    await cluster.is_whole(workload.topic)
    assert len(workload.acknowledged) > 0
    await kept_its_word(workload)


def _of_type(said: Any, type: str) -> list[Any]:
    return [one for one in said["answer"]["events"] if one["type"] == type]


def _racks(cluster: ComposeCluster) -> dict[int, str]:
    code = (
        "import json, urllib.request as u; "
        "print(u.urlopen('http://broker-1:9092/v1/describe_cluster').read().decode())"
    )
    said = json.loads(cluster.in_tools("python3", "-c", code))
    return {one["broker_id"]: one["rack"] for one in said["brokers"]}


def _start_to_registered_ms(cluster: ComposeCluster, container: Any, broker: int) -> int:
    """From Docker's start of the container to the broker's own word that it is registered."""
    connection = http.client.HTTPConnection("127.0.0.1", cluster.ports[broker - 1], timeout=5)
    connection.request(
        "GET", "/v1/events?type=BrokerRegistered&limit=1", headers={"Accept": "application/json"}
    )
    (event,) = json.loads(connection.getresponse().read())["events"]
    connection.close()
    text = container.attrs["State"]["StartedAt"]
    started = datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00").timestamp() * 1000
    return int(event["time"] - started)
