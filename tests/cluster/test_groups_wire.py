"""Consumer groups on a real broker process, spoken to request by request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kafkalite.common import CONSUMER_OFFSETS, Address, TopicPartition
from kafkalite.protocol.consumer_protocol import Assignment, Subscription
from kafkalite.protocol.create_topics import CreateTopicsRequest, CreateTopicsTopic
from kafkalite.protocol.delete_groups import DeleteGroupsRequest
from kafkalite.protocol.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from kafkalite.protocol.describe_groups import DescribeGroupsRequest
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.find_coordinator import FindCoordinatorRequest
from kafkalite.protocol.heartbeat import HeartbeatRequest
from kafkalite.protocol.join_group import JoinGroupProtocol, JoinGroupRequest, JoinGroupResponse
from kafkalite.protocol.leave_group import LeaveGroupMember, LeaveGroupRequest
from kafkalite.protocol.list_groups import ListGroupsRequest
from kafkalite.protocol.metadata import MetadataRequest, MetadataTopic
from kafkalite.protocol.offset_commit import OffsetCommitPartition, OffsetCommitRequest, OffsetCommitTopic
from kafkalite.protocol.offset_fetch import OffsetFetchGroup, OffsetFetchRequest, OffsetFetchTopic
from kafkalite.protocol.produce import ProducePartition, ProduceRequest, ProduceTopic
from kafkalite.protocol.record_batch import encode_batch
from kafkalite.protocol.sync_group import SyncGroupAssignment, SyncGroupRequest
from kafkalite.transport import rpc
from kafkalite.transport.http import HttpTransport
from tests.support.brokers import BrokerProcess, free_port


@pytest.fixture
async def broker(zookeeper_connect: str, tmp_path: Path) -> AsyncIterator[BrokerProcess]:
    made = BrokerProcess(
        tmp_path / "broker",
        {
            "broker.id": "1",
            "listeners": f"PLAINTEXT://127.0.0.1:{free_port()}",
            "zookeeper.connect": zookeeper_connect,
            "log.dirs": str(tmp_path / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "5",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "100",
        },
    )
    await made.start()
    yield made
    if made.process is not None and made.process.returncode is None:
        await made.kill()


class Asker:
    """Asks one broker, each purpose on a lane of its own."""

    def __init__(self, transport: HttpTransport, broker: BrokerProcess) -> None:
        self.transport = transport
        self.address = Address("127.0.0.1", broker.port)

    async def coordinator(self, group: str) -> None:
        """Wait until the group has a coordinator here that is loaded."""
        request = FindCoordinatorRequest(coordinator_keys=[group])
        fetch = OffsetFetchRequest(groups=[OffsetFetchGroup(group_id=group)])
        async with asyncio.timeout(30):
            while True:
                found = await rpc.ask(self.transport, self.address, request, lane="find", timeout_ms=30_000)
                if found.coordinators[0].error_code == ErrorCode.NONE:
                    assert (found.coordinators[0].node_id, found.coordinators[0].port) == (
                        1,
                        self.address.port,
                    )
                    answer = await rpc.ask(
                        self.transport, self.address, fetch, lane="find", timeout_ms=30_000
                    )
                    if answer.groups[0].error_code == ErrorCode.NONE:
                        return
                await asyncio.sleep(0.05)

    async def join(self, group: str, member_id: str, lane: str) -> JoinGroupResponse:
        request = JoinGroupRequest(
            group_id=group,
            session_timeout_ms=10_000,
            rebalance_timeout_ms=10_000,
            member_id=member_id,
            protocol_type="consumer",
            protocols=[JoinGroupProtocol(name="range", metadata=Subscription(("orders",)).encode())],
        )
        return await rpc.ask(
            self.transport, self.address, request, lane=lane, timeout_ms=30_000, client_id="tester"
        )

    async def enter(self, group: str, lane: str) -> JoinGroupResponse:
        first = await self.join(group, "", lane)
        assert first.error_code == ErrorCode.MEMBER_ID_REQUIRED
        assert first.member_id.startswith("tester-")
        return await self.join(group, first.member_id, lane)

    async def sync(
        self, joined: JoinGroupResponse, group: str, lane: str, assignments: dict[str, bytes]
    ) -> bytes:
        request = SyncGroupRequest(
            group_id=group,
            generation_id=joined.generation_id,
            member_id=joined.member_id,
            protocol_type="consumer",
            protocol_name="range",
            assignments=[
                SyncGroupAssignment(member_id=member, assignment=assignment)
                for member, assignment in assignments.items()
            ],
        )
        answer = await rpc.ask(self.transport, self.address, request, lane=lane, timeout_ms=30_000)
        assert answer.error_code == ErrorCode.NONE
        return answer.assignment

    async def heartbeat(self, joined: JoinGroupResponse, group: str) -> int:
        request = HeartbeatRequest(
            group_id=group, generation_id=joined.generation_id, member_id=joined.member_id
        )
        answer = await rpc.ask(self.transport, self.address, request, lane="heartbeat", timeout_ms=5_000)
        return answer.error_code

    async def commit(self, group: str, offset: int, generation_id: int = -1, member_id: str = "") -> int:
        request = OffsetCommitRequest(
            group_id=group,
            generation_id_or_member_epoch=generation_id,
            member_id=member_id,
            topics=[
                OffsetCommitTopic(
                    name="orders",
                    partitions=[OffsetCommitPartition(partition_index=0, committed_offset=offset)],
                )
            ],
        )
        answer = await rpc.ask(self.transport, self.address, request, lane="commit", timeout_ms=10_000)
        return answer.topics[0].partitions[0].error_code

    async def committed(self, group: str) -> int:
        request = OffsetFetchRequest(
            groups=[
                OffsetFetchGroup(
                    group_id=group, topics=[OffsetFetchTopic(name="orders", partition_indexes=[0])]
                )
            ]
        )
        answer = await rpc.ask(self.transport, self.address, request, lane="commit", timeout_ms=10_000)
        assert answer.groups[0].error_code == ErrorCode.NONE
        return answer.groups[0].topics[0].partitions[0].committed_offset

    async def create_orders(self) -> None:
        topic = CreateTopicsTopic(
            name="orders", num_partitions=2, replication_factor=1, assignments=[], configs=[]
        )
        request = CreateTopicsRequest(topics=[topic])
        async with asyncio.timeout(30):
            while True:  # A broker that has just started may not have been elected yet.
                answer = await rpc.ask(self.transport, self.address, request, lane="admin", timeout_ms=60_000)
                if answer.topics[0].error_code == ErrorCode.NONE:
                    return
                assert answer.topics[0].error_code == ErrorCode.NOT_CONTROLLER
                await asyncio.sleep(0.05)


@pytest.fixture
async def asker(broker: BrokerProcess) -> AsyncIterator[Asker]:
    transport = HttpTransport()
    asker = Asker(transport, broker)
    await asker.create_orders()
    yield asker
    await transport.close()


async def test_two_members_share_a_topic_and_one_leaves(asker: Asker) -> None:
    await asker.coordinator("g")
    first = await asker.enter("g", "one")
    assert (first.error_code, first.generation_id, first.leader) == (0, 1, first.member_id)
    both = [TopicPartition("orders", 0), TopicPartition("orders", 1)]
    assert await asker.sync(first, "g", "one", {first.member_id: Assignment(tuple(both)).encode()})

    second = asyncio.create_task(asker.enter("g", "two"))
    async with asyncio.timeout(10):
        while await asker.heartbeat(first, "g") != ErrorCode.REBALANCE_IN_PROGRESS:
            await asyncio.sleep(0.01)
    again = await asker.join("g", first.member_id, "one")
    other = await second
    assert again.generation_id == other.generation_id == 2
    assert [member.member_id for member in again.members] == [first.member_id, other.member_id]
    assignments = {
        again.member_id: Assignment((both[0],)).encode(),
        other.member_id: Assignment((both[1],)).encode(),
    }
    mine, theirs = await asyncio.gather(
        asker.sync(again, "g", "one", assignments), asker.sync(other, "g", "two", {})
    )
    assert Assignment.decode(mine).partitions == (both[0],)
    assert Assignment.decode(theirs).partitions == (both[1],)

    assert await asker.commit("g", 5, 2, again.member_id) == ErrorCode.NONE
    assert await asker.commit("g", 6, 1, again.member_id) == ErrorCode.ILLEGAL_GENERATION
    assert await asker.commit("g", 6) == ErrorCode.UNKNOWN_MEMBER_ID
    assert await asker.committed("g") == 5

    request = DescribeGroupsRequest(groups=["g"])
    described = await rpc.ask(asker.transport, asker.address, request, lane="admin", timeout_ms=5_000)
    group = described.groups[0]
    assert (group.group_state, group.protocol_type, group.protocol_data) == ("Stable", "consumer", "range")
    assert {member.client_host for member in group.members} == {"/127.0.0.1"}
    listed = await rpc.ask(
        asker.transport, asker.address, ListGroupsRequest(), lane="admin", timeout_ms=5_000
    )
    assert [group.group_id for group in listed.groups] == ["g"]

    leave = LeaveGroupRequest(group_id="g", members=[LeaveGroupMember(member_id=other.member_id)])
    left = await rpc.ask(asker.transport, asker.address, leave, lane="admin", timeout_ms=5_000)
    assert [member.error_code for member in left.members] == [0]
    assert await asker.heartbeat(again, "g") == ErrorCode.REBALANCE_IN_PROGRESS
    alone = await asker.join("g", first.member_id, "one")
    assert alone.generation_id == 3
    delete = DeleteGroupsRequest(groups_names=["g", "nobody"])
    deleted = await rpc.ask(asker.transport, asker.address, delete, lane="admin", timeout_ms=5_000)
    assert [result.error_code for result in deleted.results] == [
        ErrorCode.NON_EMPTY_GROUP,
        ErrorCode.GROUP_ID_NOT_FOUND,
    ]


async def test_offsets_and_members_outlive_the_coordinators_process(
    asker: Asker, broker: BrokerProcess
) -> None:
    await asker.coordinator("g")
    await asker.coordinator("simple")
    joined = await asker.enter("g", "one")
    assignment = Assignment((TopicPartition("orders", 0),)).encode()
    await asker.sync(joined, "g", "one", {joined.member_id: assignment})
    assert await asker.commit("g", 41, joined.generation_id, joined.member_id) == ErrorCode.NONE
    assert await asker.commit("simple", 7) == ErrorCode.NONE

    await broker.kill()
    await broker.start()

    await asker.coordinator("g")
    await asker.coordinator("simple")
    assert await asker.committed("g") == 41
    assert await asker.committed("simple") == 7
    assert await asker.heartbeat(joined, "g") == ErrorCode.NONE
    assert await asker.sync(joined, "g", "one", {}) == assignment
    assert await asker.commit("g", 42, joined.generation_id, joined.member_id) == ErrorCode.NONE


async def test_the_internal_topic_is_as_kafka_makes_it_and_only_brokers_write_to_it(asker: Asker) -> None:
    await asker.coordinator("g")
    metadata = await rpc.ask(
        asker.transport,
        asker.address,
        MetadataRequest(topics=[MetadataTopic(name=CONSUMER_OFFSETS)]),
        lane="admin",
        timeout_ms=5_000,
    )
    assert metadata.topics[0].is_internal
    assert len(metadata.topics[0].partitions) == 5
    wanted = ["cleanup.policy", "segment.bytes"]
    configs = await rpc.ask(
        asker.transport,
        asker.address,
        DescribeConfigsRequest(
            resources=[
                DescribeConfigsResource(
                    resource_type=2, resource_name=CONSUMER_OFFSETS, configuration_keys=wanted
                )
            ]
        ),
        lane="admin",
        timeout_ms=5_000,
    )
    assert {config.name: config.value for config in configs.results[0].configs} == {
        "cleanup.policy": "compact",
        "segment.bytes": "104857600",
    }
    produce = ProduceRequest(
        acks=-1,
        timeout_ms=1_000,
        topic_data=[
            ProduceTopic(
                name=CONSUMER_OFFSETS,
                partition_data=[
                    ProducePartition(
                        index=0, records=memoryview(encode_batch([b"v"], keys=[b"k"], timestamps=0))
                    )
                ],
            )
        ],
    )
    refused = await rpc.ask(asker.transport, asker.address, produce, lane="produce", timeout_ms=5_000)
    assert refused.responses[0].partition_responses[0].error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


@pytest.fixture
async def three_brokers(zookeeper_connect: str, tmp_path: Path) -> AsyncIterator[list[BrokerProcess]]:
    made = [
        BrokerProcess(
            tmp_path / f"broker-{number}",
            {
                "broker.id": str(number),
                "listeners": f"PLAINTEXT://127.0.0.1:{free_port()}",
                "zookeeper.connect": zookeeper_connect,
                "zookeeper.session.timeout.ms": "2000",
                "log.dirs": str(tmp_path / f"data-{number}"),
                "offsets.topic.num.partitions": "3",
                "group.initial.rebalance.delay.ms": "0",
            },
        )
        for number in (1, 2, 3)
    ]
    await asyncio.gather(*(broker.start() for broker in made))
    yield made
    for broker in made:
        if broker.process is not None and broker.process.returncode is None:
            await broker.kill()


async def coordinator_of(transport: HttpTransport, brokers: list[BrokerProcess], group: str) -> BrokerProcess:
    """The broker among ``brokers`` that coordinates ``group``, once all agree and it is loaded."""
    request = FindCoordinatorRequest(coordinator_keys=[group])
    fetch = OffsetFetchRequest(groups=[OffsetFetchGroup(group_id=group)])
    async with asyncio.timeout(60):
        while True:
            answers = [
                await rpc.ask(
                    transport, Address("127.0.0.1", broker.port), request, lane="find", timeout_ms=30_000
                )
                for broker in brokers
            ]
            found = {(answer.coordinators[0].error_code, answer.coordinators[0].port) for answer in answers}
            if len(found) == 1:
                ((code, port),) = found
                named = next((broker for broker in brokers if broker.port == port), None)
                if code == ErrorCode.NONE and named is not None:
                    address = Address("127.0.0.1", port)
                    answer = await rpc.ask(transport, address, fetch, lane="find", timeout_ms=10_000)
                    if answer.groups[0].error_code == ErrorCode.NONE:
                        return named
            await asyncio.sleep(0.1)


async def test_a_killed_coordinator_takes_no_acknowledged_commit_with_it(
    three_brokers: list[BrokerProcess],
) -> None:
    transport = HttpTransport()
    first = await coordinator_of(transport, three_brokers, "g")
    controller = Asker(transport, first)
    metadata = await rpc.ask(
        transport, controller.address, MetadataRequest(topics=[]), lane="admin", timeout_ms=5_000
    )
    ruling = next(b for b in three_brokers if b.properties["broker.id"] == str(metadata.controller_id))
    await Asker(transport, ruling).create_orders()
    asker = Asker(transport, first)
    async with asyncio.timeout(30):
        while await asker.commit("g", 0) != ErrorCode.NONE:  # Until this broker knows the new topic.
            await asyncio.sleep(0.05)
    joined = await asker.enter("g", "one")
    assignment = Assignment((TopicPartition("orders", 0),)).encode()
    await asker.sync(joined, "g", "one", {joined.member_id: assignment})
    for offset in range(1, 20):
        assert await asker.commit("g", offset, joined.generation_id, joined.member_id) == ErrorCode.NONE

    await first.kill()

    rest = [broker for broker in three_brokers if broker is not first]
    second = Asker(transport, await coordinator_of(transport, rest, "g"))
    assert await second.committed("g") == 19
    assert await second.heartbeat(joined, "g") == ErrorCode.NONE
    assert await second.sync(joined, "g", "one", {}) == assignment
    assert await second.commit("g", 20, joined.generation_id, joined.member_id) == ErrorCode.NONE
    await transport.close()
