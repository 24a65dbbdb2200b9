"""Rows of the benchmark about groups: members that read and commit, rebalances, many groups, commits.

Members are real consumers in processes of their own where they read; where a thousand groups or commits are
counted they are requests of one client, so that the broker's part is what is measured. Every record must
have been processed once, and every offset that was acknowledged must be there afterwards.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import IO, Any, Final

import msgspec

from kafkalite.client.admin import AdminClient, NewTopic
from kafkalite.client.errors import BrokerError, ClusterUnreachableError
from kafkalite.cluster.journals import read_journals
from kafkalite.cluster.launcher import Cluster
from kafkalite.common import Address, TopicPartition
from kafkalite.perf.group_worker import GroupWork, GroupWorked
from kafkalite.perf.latencies import Latencies
from kafkalite.perf.machine import cpu_s, load, peak_rss_mb, rss_mb
from kafkalite.perf.runner import TOPIC, RunFailed, fill, fresh_cluster
from kafkalite.protocol.consumer_protocol import PROTOCOL_TYPE, Assignment, Subscription
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.heartbeat import HeartbeatRequest
from kafkalite.protocol.join_group import JoinGroupProtocol, JoinGroupRequest
from kafkalite.protocol.offset_commit import OffsetCommitPartition, OffsetCommitRequest, OffsetCommitTopic
from kafkalite.protocol.sync_group import SyncGroupAssignment, SyncGroupRequest
from kafkalite.transport import rpc
from kafkalite.transport.http import HttpTransport

GROUP: Final = "bench-group"
AT_REST_S: Final = 5.0
"""How long the processor time of a group is counted that has nothing to read."""
PATIENCE_S: Final = 300.0
REBALANCE_TIMEOUT_MS: Final = 5_000
"""Of the members of the rebalance row, one of which does not answer."""
SESSION_MS: Final = 6_000
"""The brokers' ZooKeeper session where one is killed."""
MEMBERS_A_PROCESS: Final = 25
IN_FLIGHT: Final = 100
"""Groups, or commits, that are asked for at a time."""
GROUPS: Final = 1_000


class GroupRow(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement."""

    name: str
    title: str
    measure: str
    """`read`, `rebalance`, `many` or `commit`."""
    members: int = 1
    brokers: int = 3


class GroupRun(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one row."""

    row: str
    figures: dict[str, float]
    """By what they are, the unit at the end of the name."""
    broker_peak_rss_mb: float
    """Of the broker that took most."""
    load_before: float


GROUP_ROWS: Final[Mapping[str, GroupRow]] = {
    row.name: row
    for row in (
        *(
            GroupRow(
                name=f"group-{members}",
                title=f"{members} member{'s' * (members > 1)} of a group, columns, auto commit",
                measure="read",
                members=members,
            )
            for members in (1, 10, 100)
        ),
        GroupRow(
            name="group-rebalance",
            title="a group of ten rebalances: one joins, leaves, does not answer; its coordinator dies",
            measure="rebalance",
            members=10,
        ),
        GroupRow(
            name="groups-1000", title="1,000 groups of one member on one broker", measure="many", brokers=1
        ),
        GroupRow(name="commits", title="commits to 100 groups, replicated three times", measure="commit"),
    )
}


def run_group_row(row: GroupRow, records: int, say: Callable[[str], None]) -> GroupRun:
    """One round of ``row``; a row that reads has ``records`` records, others a hundredth as many commits.

    Raises RunFailed.
    """
    before = load()
    overrides = {"group.initial.rebalance.delay.ms": "0", "zookeeper.session.timeout.ms": str(SESSION_MS)}
    with fresh_cluster(row.brokers, say, overrides) as cluster:
        pids = [p.pid for node in cluster.layout.brokers if (p := cluster.process(node)) is not None]
        commits = max(1000, records // 100)
        match row.measure:
            case "read":
                figures = asyncio.run(_read(cluster, pids, row.members, records))
            case "rebalance":
                figures = asyncio.run(_rebalance(cluster, row.members, max(1000, records // 20)))
            case "many":
                figures = asyncio.run(_many(cluster, pids[0], commits))
            case _:
                figures = asyncio.run(_commit(cluster, pids, commits))
        alive = [p.pid for node in cluster.layout.brokers if (p := cluster.process(node)) is not None]
        peak = max(map(peak_rss_mb, alive))
    return GroupRun(row=row.name, figures=figures, broker_peak_rss_mb=peak, load_before=before)


# --- Members that read -------------------------------------------------------------------------


class _Process:
    """Some members of the group."""

    def __init__(self, work: GroupWork) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kafkalite.cli", "bench-group-worker", msgspec.json.encode(work).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        if self._out.readline() != "ready\n":
            raise RunFailed("a process of members has failed; its words are above")

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def result(self) -> GroupWorked:
        text = self._out.read()
        if self.process.wait() != 0:
            raise RunFailed("a process of members has failed; its words are above")
        return msgspec.convert(json.loads(text), GroupWorked)

    @property
    def _out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout


@contextmanager
def _processes(cluster: Cluster, sizes: Sequence[int]) -> Iterator[list[_Process]]:
    """Members that are ready to join."""
    work = GroupWork(
        bootstrap=cluster.layout.bootstrap_servers,
        topic=TOPIC,
        group=GROUP,
        members=0,
        max_poll_interval_ms=REBALANCE_TIMEOUT_MS,
    )
    started = [_Process(msgspec.structs.replace(work, members=size)) for size in sizes]
    try:
        for each in started:
            each.ready()
        yield started
    finally:
        for each in started:
            if each.process.poll() is None:
                each.process.kill()
            each.process.wait()


async def _prepare(cluster: Cluster, partitions: int, records: int) -> None:
    async with AdminClient(bootstrap_servers=cluster.layout.bootstrap_servers) as admin:
        await admin.create_topics([NewTopic(TOPIC, partitions, 3)])
    await asyncio.to_thread(fill, cluster.layout.bootstrap_servers, records)


async def _read(cluster: Cluster, pids: Sequence[int], members: int, records: int) -> dict[str, float]:
    await _prepare(cluster, 100, records)
    with _processes(cluster, _sizes(members)) as processes:
        spent = sum(map(cpu_s, pids))
        began = time.monotonic()
        for each in processes:
            each.say("go")
        async with AdminClient(bootstrap_servers=cluster.layout.bootstrap_servers) as admin:
            await _until(lambda: _has_committed(admin, records), "all records to be committed")
        spent = sum(map(cpu_s, pids)) - spent
        everybody = [*pids, *(each.process.pid for each in processes)]
        rest = {pid: cpu_s(pid) for pid in everybody}
        await asyncio.sleep(AT_REST_S)
        rest = {pid: cpu_s(pid) - before for pid, before in rest.items()}
        for each in processes:
            each.say("stop")
        done = [await asyncio.to_thread(each.result) for each in processes]
    _check_count(done, records)
    seconds = max(each.last for each in done) - min(each.first for each in done if each.records)
    return {
        "records_per_s": records / seconds,
        "settled_after_s": max(each.settled for each in done) - began,
        "broker_cpu_s_per_million": spent / records * 1e6,
        "brokers_at_rest_percent": 100 * sum(rest[pid] for pid in pids) / AT_REST_S,
        "members_at_rest_percent": 100 * sum(rest[pid] for pid in everybody[len(pids) :]) / AT_REST_S,
    }


def _sizes(members: int) -> list[int]:
    whole, rest = divmod(members, MEMBERS_A_PROCESS)
    return [MEMBERS_A_PROCESS] * whole + [rest] * (rest > 0)


async def _has_committed(admin: AdminClient, records: int) -> bool:
    return sum(at.offset for at in (await admin.list_consumer_group_offsets(GROUP)).values()) == records


def _check_count(done: Sequence[GroupWorked], records: int) -> None:
    found = sum(each.records for each in done)
    if found != records:
        raise RunFailed(f"{found} records were processed where there are {records}")


# --- Rebalances --------------------------------------------------------------------------------


async def _rebalance(cluster: Cluster, members: int, records: int) -> dict[str, float]:
    await _prepare(cluster, 2 * members, records)
    figures: dict[str, float] = {}
    sizes = [members, 1, 1, 1]
    bootstrap = cluster.layout.bootstrap_servers
    with _processes(cluster, sizes) as (all_of_them, visitor, silent, late):
        async with AdminClient(bootstrap_servers=bootstrap) as admin:

            async def settle(name: str, count: int) -> None:
                """Wait until ``count`` members share everything, and note how long it took."""
                await _until(lambda: _is_settled(admin, count, 2 * members), f"{count} members")
                figures[f"{name}_ms"] = _rebalanced_for_ms(cluster, since_ms)

            since_ms = time.time() * 1000
            all_of_them.say("go")
            await settle("ten_join", members)
            since_ms = time.time() * 1000
            visitor.say("go")
            await settle("one_joins", members + 1)
            since_ms = time.time() * 1000
            visitor.say("stop")
            await settle("one_leaves", members)
            since_ms = time.time() * 1000
            silent.say("go")
            await settle("one_joins_again", members + 1)
            silent.process.send_signal(signal.SIGSTOP)
            since_ms = time.time() * 1000
            late.say("go")
            await _until(lambda: _has_member_count(admin, members + 2), "the newcomer")
            await settle("one_does_not_answer", members + 1)
            silent.process.kill()
            since_ms = time.time() * 1000
            late.say("stop")
            await settle("another_leaves", members)
            await _until(lambda: _has_committed(admin, records), "all records to be committed")
            found = (await admin.describe_consumer_groups([GROUP]))[GROUP]
            killed, since_ms = time.monotonic(), time.time() * 1000
            await asyncio.to_thread(cluster.kill, [f"broker-{found.coordinator.node_id}"])
            await _until(
                lambda: _is_settled(admin, members, 2 * members, found.coordinator.node_id), "a coordinator"
            )
            figures["coordinator_dies_ms"] = (time.monotonic() - killed) * 1000
            figures["rebalances_when_it_dies"] = len(_completed(cluster, since_ms))
        all_of_them.say("stop")
        done = [await asyncio.to_thread(each.result) for each in (all_of_them, visitor, late)]
    _check_count(done, records)
    return figures


def _events(cluster: Cluster, type: str, since_ms: float) -> list[int]:
    return [
        event.time
        for event in read_journals(cluster).events
        if event.type == type and event.facts.get("group") == GROUP and event.time >= since_ms
    ]


def _completed(cluster: Cluster, since_ms: float) -> list[int]:
    return _events(cluster, "GroupRebalanceCompleted", since_ms)


def _rebalanced_for_ms(cluster: Cluster, since_ms: float) -> float:
    """From the first reason until the last assignment, as the coordinator wrote it down."""
    return max(_completed(cluster, since_ms)) - min(_events(cluster, "GroupRebalanceStarted", since_ms))


async def _is_settled(admin: AdminClient, members: int, partitions: int, not_by: int = -1) -> bool:
    """Whether ``members`` members share all partitions evenly."""
    found = (await admin.describe_consumer_groups([GROUP]))[GROUP]
    sizes = [len(member.assignment) for member in found.members]
    return (
        found.state == "Stable"
        and found.coordinator.node_id != not_by
        and len(sizes) == members
        and sum(sizes) == len({tp for member in found.members for tp in member.assignment}) == partitions
        and max(sizes) - min(sizes) <= 1
    )


async def _has_member_count(admin: AdminClient, members: int) -> bool:
    return len((await admin.describe_consumer_groups([GROUP]))[GROUP].members) == members


async def _until(condition: Callable[[], Any], what: str) -> None:
    """Wait for it. Raises RunFailed."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if await condition():
                return
        except (BrokerError, ClusterUnreachableError):
            pass  # The coordinator has just died, or is loading: the next look tells.
        if time.monotonic() > deadline:
            raise RunFailed(f"{what}: waited for {PATIENCE_S:.0f} s in vain")
        await asyncio.sleep(0.1)


# --- Many groups, and commits ------------------------------------------------------------------


class _Group:
    """A group of one member, as requests."""

    def __init__(self, transport: HttpTransport, name: str, address: Address, lane: str) -> None:
        self.name = name
        self._transport = transport
        self._address = address
        self._lane = lane
        self.member_id = ""
        self.generation_id = -1
        self.committed = 0

    async def _ask(self, request: Any) -> Any:
        return await rpc.ask(self._transport, self._address, request, lane=self._lane, timeout_ms=60_000)

    async def join(self) -> None:
        request = JoinGroupRequest(
            group_id=self.name,
            session_timeout_ms=60_000,
            rebalance_timeout_ms=60_000,
            member_id="",
            protocol_type=PROTOCOL_TYPE,
            protocols=[JoinGroupProtocol(name="range", metadata=Subscription((TOPIC,)).encode())],
        )
        first = await self._ask(request)
        joined = await self._ask(msgspec.structs.replace(request, member_id=first.member_id))
        _check(joined.error_code)
        self.member_id, self.generation_id = joined.member_id, joined.generation_id
        assignment = Assignment((TopicPartition(TOPIC, 0),)).encode()
        synced = await self._ask(
            SyncGroupRequest(
                group_id=self.name,
                generation_id=self.generation_id,
                member_id=self.member_id,
                protocol_type=PROTOCOL_TYPE,
                protocol_name="range",
                assignments=[SyncGroupAssignment(member_id=self.member_id, assignment=assignment)],
            )
        )
        _check(synced.error_code)

    async def heartbeat(self) -> None:
        answer = await self._ask(
            HeartbeatRequest(group_id=self.name, generation_id=self.generation_id, member_id=self.member_id)
        )
        _check(answer.error_code)

    async def commit(self) -> None:
        offset = OffsetCommitPartition(partition_index=0, committed_offset=self.committed + 1)
        answer = await self._ask(
            OffsetCommitRequest(
                group_id=self.name,
                generation_id_or_member_epoch=self.generation_id,
                member_id=self.member_id,
                topics=[OffsetCommitTopic(name=TOPIC, partitions=[offset])],
            )
        )
        _check(answer.topics[0].partitions[0].error_code)
        self.committed += 1


def _check(code: int) -> None:
    if code != ErrorCode.NONE:
        raise RunFailed(f"a group's request was answered {ErrorCode(code).name}")


@asynccontextmanager
async def _groups(cluster: Cluster, count: int) -> AsyncIterator[list[_Group]]:
    """Groups that nobody has joined yet, each knowing its coordinator."""
    bootstrap = cluster.layout.bootstrap_servers
    names = [f"bench-{number}" for number in range(count)]
    transport = HttpTransport()
    try:
        async with AdminClient(bootstrap_servers=bootstrap) as admin:
            await admin.create_topics([NewTopic(TOPIC, 1, min(3, len(cluster.layout.brokers)))])
            found = await admin.describe_consumer_groups(names)
        yield [
            _Group(transport, name, found[name].coordinator.address, f"lane {number % IN_FLIGHT}")
            for number, name in enumerate(names)
        ]
    finally:
        await transport.close()


async def _each(groups: Sequence[_Group], do: Callable[[_Group], Any]) -> None:
    """Do it for all of them, so many at a time that each lane has one request under way."""

    async def in_turn(mine: Sequence[_Group]) -> None:
        for group in mine:
            await do(group)

    async with asyncio.TaskGroup() as tasks:
        for number in range(IN_FLIGHT):
            tasks.create_task(in_turn(groups[number::IN_FLIGHT]))


async def _check_offsets(cluster: Cluster, groups: Sequence[_Group]) -> None:
    """What was acknowledged is there."""
    async with AdminClient(bootstrap_servers=cluster.layout.bootstrap_servers) as admin:
        for group in groups:
            found = await admin.list_consumer_group_offsets(group.name)
            if found[TopicPartition(TOPIC, 0)].offset != group.committed:
                raise RunFailed(f"{group.name}: {found} where {group.committed} was acknowledged")


async def _committing(groups: Sequence[_Group], commits: int) -> tuple[float, Latencies]:
    """Commit so often in all; the seconds and how long each took."""
    latencies = Latencies()

    async def commit(group: _Group) -> None:
        for _ in range(max(1, commits // len(groups))):
            since = time.perf_counter()
            await group.commit()
            latencies.add((time.perf_counter() - since) * 1000)

    began = time.perf_counter()
    await _each(groups, commit)
    return time.perf_counter() - began, latencies


async def _many(cluster: Cluster, pid: int, commits: int) -> dict[str, float]:
    async with _groups(cluster, GROUPS) as groups:
        memory, spent, began = rss_mb(pid), cpu_s(pid), time.perf_counter()
        await _each(groups, _Group.join)
        joined_s, joined_cpu_s = time.perf_counter() - began, cpu_s(pid) - spent
        spent = cpu_s(pid)
        await _each(groups, _Group.heartbeat)
        heartbeats_cpu_s = cpu_s(pid) - spent
        spent = cpu_s(pid)
        seconds, latencies = await _committing(groups, max(commits, GROUPS))
        count = len(latencies.all)
        commits_cpu_s = cpu_s(pid) - spent
        await _check_offsets(cluster, groups)
        return {
            "joined_per_s": len(groups) / joined_s,
            "broker_cpu_ms_per_join": 1000 * joined_cpu_s / len(groups),
            "broker_cpu_ms_per_heartbeat": 1000 * heartbeats_cpu_s / len(groups),
            "commits_per_s": count / seconds,
            "broker_cpu_ms_per_commit": 1000 * commits_cpu_s / count,
            "memory_kb_per_group": (rss_mb(pid) - memory) * 1000 / len(groups),
        }


async def _commit(cluster: Cluster, pids: Sequence[int], commits: int) -> dict[str, float]:
    async with _groups(cluster, IN_FLIGHT) as groups:
        await _each(groups, _Group.join)
        await _committing(groups, IN_FLIGHT)  # The first ones find cold code.
        spent, mine = sum(map(cpu_s, pids)), time.process_time()
        seconds, latencies = await _committing(groups, commits)
        spent, mine = sum(map(cpu_s, pids)) - spent, time.process_time() - mine
        await _check_offsets(cluster, groups)
        found = latencies.summary()
        return {
            "commits_per_s": found.count / seconds,
            "p50_ms": found.p50,
            "p99_ms": found.p99,
            "brokers_cpu_ms_per_commit": 1000 * spent / found.count,
            "client_cpu_ms_per_commit": 1000 * mine / found.count,
        }
