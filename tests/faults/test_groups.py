"""Groups of real processes on real brokers: coordinators killed in every phase, members that keep on reading.

What the members wrote down is judged as a whole (see :mod:`tests.support.group_history`): every record was
processed, and none once its offset was committed.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kafkalite.client import AdminClient, TopicPartition
from kafkalite.client.group.admin import GroupDescription
from kafkalite.client.records import OffsetAndMetadata
from kafkalite.cluster.journals import read_journals
from kafkalite.cluster.launcher import Cluster
from kafkalite.why import GroupAnswer, explain_group
from tests.support.group_history import Member, Party, until

from .conftest import OVERRIDES, FaultCluster

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def _grouped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster.load_or_create(
        tmp_path_factory.mktemp("groups"),
        brokers=3,
        zookeepers=1,
        overrides=OVERRIDES
        | {"group.initial.rebalance.delay.ms": "100", "group.min.session.timeout.ms": "1000"},
    )
    cluster.own_overrides = {node.name: {"broker.rack": f"rack-{node.id}"} for node in cluster.layout.brokers}
    try:
        cluster.up(timeout_s=120)
        yield cluster
    finally:
        cluster.down(timeout_s=60, delete=True)


class GroupCluster(FaultCluster):
    """A cluster whose groups are looked at from outside."""

    async def group(self, group: str) -> GroupDescription:
        async with AdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            return (await admin.describe_consumer_groups([group]))[group]

    async def until_state(self, group: str, state: str) -> str:
        """Wait until ``group`` is in ``state``; the coordinator's name."""
        async with AdminClient(bootstrap_servers=self.bootstrap_servers) as admin, asyncio.timeout(60):
            while True:
                found = (await admin.describe_consumer_groups([group]))[group]
                if found.state == state:
                    return f"broker-{found.coordinator.node_id}"
                await asyncio.sleep(0.02)

    async def another_leader_than(self, broker: int, topic: str) -> None:
        """Wait until ``broker`` leads nothing of ``topic``, as the brokers tell clients."""
        async with AdminClient(bootstrap_servers=self.bootstrap_servers) as admin, asyncio.timeout(60):
            while True:
                [described] = await admin.describe_topics([topic])
                if all(one.leader not in (broker, -1) for one in described.partitions):
                    return
                await asyncio.sleep(0.1)

    async def offsets(self, group: str) -> dict[TopicPartition, int]:
        async with AdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            found = await admin.list_consumer_group_offsets(group)
        return {tp: committed.offset for tp, committed in found.items()}

    def why_group(self, group: str) -> GroupAnswer:
        return explain_group(read_journals(self.cluster), group)


@pytest.fixture
async def cluster(_grouped: Cluster) -> GroupCluster:
    """The shared cluster, whole again."""
    await asyncio.to_thread(_grouped.up, timeout_s=120)
    return GroupCluster(_grouped)


async def party(cluster: GroupCluster, directory: Path, *, partitions: int = 4) -> Party:
    topic = await cluster.create_topic(partitions=partitions)
    return Party(directory, cluster.bootstrap_servers, topic, partitions, f"of-{topic}")


def _owns(member: Member, partitions: frozenset[TopicPartition]) -> bool:
    return member.owns() == partitions


@pytest.mark.parametrize(
    "phase",
    ["PreparingRebalance", "CompletingRebalance", "Stable", pytest.param("Empty", marks=pytest.mark.soak)],
)
async def test_the_coordinator_is_killed(cluster: GroupCluster, tmp_path: Path, phase: str) -> None:
    hold = tmp_path / "hold"
    async with await party(cluster, tmp_path) as group:
        group.start("a", hold=hold)
        group.start("b", hold=hold)
        await group.fill(300)
        await group.until_shared("a", "b")
        match phase:
            case "PreparingRebalance":  # It waits for b to join again.
                group.members["b"].send(signal.SIGSTOP)
                group.start("c")
            case "CompletingRebalance":  # It waits for the leader's assignment.
                hold.touch()
                group.start("c")
            case "Stable":  # Both commit after each of their batches.
                await group.fill(1000)
            case "Empty":
                await group.until_all_is_processed()
                group.members["a"].end()
                group.members["b"].end()
        coordinator = await cluster.until_state(group.group, phase)
        await cluster.kill(coordinator)
        await group.fill(300)
        hold.unlink(missing_ok=True)
        group.members["b"].end() if phase == "Empty" else group.members["b"].send(signal.SIGCONT)
        if phase in ("Stable", "Empty"):
            group.start("c")
        await group.until_all_is_processed()
        await cluster.start(coordinator)
        await group.until_shared(*("c" if phase == "Empty" else "abc"))
        await group.fill(300)
        await group.until_all_is_processed()
    group.verify()


async def test_the_coordinator_is_killed_while_it_deletes_groups(cluster: GroupCluster) -> None:
    """What was answered is so: a group is gone then. Where no answer came it is gone or whole, never half."""
    topic = await cluster.create_topic(partitions=4)
    offsets = {TopicPartition(topic, number): OffsetAndMetadata(number + 1) for number in range(4)}
    async with AdminClient(bootstrap_servers=cluster.bootstrap_servers) as admin:
        names = [f"dead-{topic}-{number}" for number in range(60)]
        described = await admin.describe_consumer_groups(names)
        victim = described[names[0]].coordinator.node_id
        names = [name for name in names if described[name].coordinator.node_id == victim]
        for name in names:
            await admin.alter_consumer_group_offsets(name, offsets)

        async def delete(name: str) -> bool:
            return (await admin.delete_consumer_groups([name]))[name] is None

        answers = [asyncio.create_task(delete(name)) for name in names]
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        await cluster.kill(f"broker-{victim}")
        gone = await asyncio.gather(*answers)
        for name, is_gone in zip(names, gone, strict=True):
            left = await admin.list_consumer_group_offsets(name)
            assert left == {} if is_gone else left in ({}, offsets), name


async def test_members_go_on_with_what_they_keep(cluster: GroupCluster, tmp_path: Path) -> None:
    """While a cooperative rebalance waits for one member the others read on, and commit."""
    async with await party(cluster, tmp_path) as group:
        group.start("a")
        group.start("b")
        await group.fill(10)
        await group.until_shared("a", "b")
        await group.until_all_is_processed()
        kept, began = group.members["a"].owns(), time.monotonic_ns()
        group.members["b"].send(signal.SIGSTOP)
        group.start("c")
        await cluster.until_state(group.group, "PreparingRebalance")
        await group.fill(500)
        await group.until_all_is_processed(kept)
        wanted = dict.fromkeys(kept, 510)

        async def is_committed() -> bool:
            return (await cluster.offsets(group.group)).items() >= wanted.items()

        await until(is_committed)
        assert (await cluster.group(group.group)).state == "PreparingRebalance", "it did not wait for b"
        assert not group.members["a"].gave_up(since_ns=began)
        group.members["b"].send(signal.SIGCONT)
        await group.until_shared("a", "b", "c")
        await group.until_all_is_processed()
        moved = frozenset().union(*(group.members[name].gave_up(since_ns=began) for name in "ab"))
        assert moved == group.members["c"].owns(), "more stopped than what c got"
    group.verify()


@pytest.mark.soak
async def test_ten_members(cluster: GroupCluster, tmp_path: Path) -> None:
    """They come at once, one is killed, one leaves, another comes: each time all is owned once again."""
    names = [f"m{number}" for number in range(10)]
    async with await party(cluster, tmp_path, partitions=20) as group:
        await group.fill(50)
        for name in names:
            group.start(name, session_timeout_ms=4000)
        await group.until_shared(*names)
        group.members["m3"].end(signal.SIGKILL)
        await group.until_shared(*(left := [name for name in names if name != "m3"]))
        group.members["m4"].end()
        await group.until_shared(*(left := [name for name in left if name != "m4"]))
        group.start("m10", session_timeout_ms=4000)
        await group.until_shared(*left, "m10")
        await group.fill(50)
        await group.until_all_is_processed()
        described = await cluster.group(group.group)
        told = cluster.why_group(group.group)
    group.verify()
    assert sorted(tp for member in described.members for tp in member.assignment) == group.partitions
    assert told.rebalances[-1].members == 9
    departures = {
        change.client: change.what
        for change in [*told.since, *(change for one in told.rebalances for change in one.changes)]
        if change.client in ("m3", "m4") and change.what != "joined"
    }
    assert departures == {"m3": "was removed", "m4": "left"}


@pytest.mark.soak
async def test_members_get_partitions_of_their_own_rack(cluster: GroupCluster, tmp_path: Path) -> None:
    """Also while a broker is away: that its rack is not to be seen then is no reason for a rebalance."""
    topic = await cluster.create_topic(partitions=6, replication_factor=1)
    leaders = {number: await cluster.leader(topic, number) for number in range(6)}
    group_id = f"of-{topic}"
    async with Party(tmp_path, cluster.bootstrap_servers, topic, 6, group_id) as group:
        for rack in (2, 3, 1):
            group.start(f"in-{rack}", client_rack=f"rack-{rack}")

        def near() -> bool:
            return all(
                group.members[f"in-{rack}"].owns()
                == {tp for tp in group.partitions if leaders[tp.partition] == rack}
                for rack in (1, 2, 3)
            )

        await until(near)
        coordinator = (await cluster.group(group_id)).coordinator.node_id
        away = next(rack for rack in (1, 2, 3) if rack != coordinator)
        rebalances = len(cluster.why_group(group_id).rebalances)
        await cluster.kill(f"broker-{away}")
        left = [tp for tp in group.partitions if leaders[tp.partition] != away]
        await cluster.another_leader_than(away, "__consumer_offsets")
        await group.fill_some(left, 50)
        await group.until_all_is_processed(left)
        await cluster.start(f"broker-{away}")
        await group.fill(50)
        await group.until_all_is_processed()
        assert near()
        assert len(cluster.why_group(group_id).rebalances) == rebalances
    group.verify()


@pytest.mark.soak
async def test_a_rolling_restart_of_ten_static_members_moves_nothing(
    cluster: GroupCluster, tmp_path: Path
) -> None:
    names = [f"s{number}" for number in range(10)]
    async with await party(cluster, tmp_path, partitions=20) as group:
        await group.fill(20)
        for name in names:
            group.start(name, group_instance_id=name, session_timeout_ms=30_000)
        await group.until_shared(*names)
        before = {name: group.members[name].owns() for name in names}
        rebalances = len(cluster.why_group(group.group).rebalances)
        for name in names:
            await asyncio.to_thread(group.members[name].end)
            again = group.start(name, group_instance_id=name, session_timeout_ms=30_000)
            await until(partial(_owns, again, before[name]))
        await group.fill(20)
        await group.until_all_is_processed()
        assert {name: group.members[name].owns() for name in names} == before
        told = cluster.why_group(group.group)
        assert len(told.rebalances) == rebalances, "a restart was a rebalance"
        assert [change.what for change in told.since] == ["took its old place again"] * 10
    group.verify()


@pytest.mark.soak
async def test_a_broker_is_away_for_a_minute(
    cluster: GroupCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What only it had is read on when it is back; the figure is printed, since machines differ."""
    topic = await cluster.create_topic(replication_factor=1)
    leaders = {number: await cluster.leader(topic, number) for number in range(3)}
    async with Party(tmp_path, cluster.bootstrap_servers, topic, 3, f"of-{topic}") as group:
        for name in "abc":
            group.start(name)
        await group.fill(500)
        await group.until_all_is_processed()
        coordinator = (await cluster.group(group.group)).coordinator.node_id
        [away] = [tp for tp in group.partitions if leaders[tp.partition] == coordinator]
        others = [tp for tp in group.partitions if tp != away]
        await cluster.kill(f"broker-{coordinator}")
        await asyncio.sleep(60)
        await group.fill_some(others, 500)
        await group.until_all_is_processed(others)
        before = time.monotonic_ns()
        starting = asyncio.create_task(cluster.start(f"broker-{coordinator}"))
        filling = asyncio.create_task(group.fill_some([away], 500))
        await asyncio.gather(starting, filling)
        await group.until_all_is_processed()
        read = min(note.time_ns for note in group.notes("P") if note.time_ns > before)
        registered = [e.time for e in cluster.events(coordinator) if e.type == "BrokerRegistered"][-1]
        after_s = time.time() - registered / 1000 - (time.monotonic_ns() - read) / 1e9
        with capsys.disabled():
            print(f"\nconsumers went on {after_s:.2f} s after the broker had registered again")
    group.verify()
