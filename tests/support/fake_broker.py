"""A cluster in memory that speaks the protocol behind the Transport edge, for tests of clients only.

Each partition has one log, shared by all its leaders: what matters to a client is who takes requests, what
they answer, and what is in the log at the end. An election may cut off what was never acknowledged, as
a real one may. Each (address, lane) is a connection: requests are handled one at a time in order, and a
connection that fails takes everything in flight on it along. Faults are injected by a hook that is asked
before each request is handled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from kafkalite.common import Address, TopicPartition, Uuid
from kafkalite.edge import Buffer, ConnectionFailed, HttpReply
from kafkalite.protocol import codec
from kafkalite.protocol.api import APIS
from kafkalite.protocol.create_topics import (
    CreateTopicsRequest,
    CreateTopicsResponse,
    CreateTopicsResponseTopic,
)
from kafkalite.protocol.describe_cluster import (
    DescribeClusterRequest,
    DescribeClusterResponse,
    DescribeClusterResponseBroker,
)
from kafkalite.protocol.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    DescribeConfigsResponseConfig,
    DescribeConfigsResponseResult,
)
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.fetch import (
    FetchRequest,
    FetchResponse,
    FetchResponseCurrentLeader,
    FetchResponsePartition,
    FetchResponseTopic,
)
from kafkalite.protocol.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from kafkalite.protocol.list_offsets import (
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsResponsePartition,
    ListOffsetsResponseTopic,
)
from kafkalite.protocol.message import Message
from kafkalite.protocol.metadata import (
    MetadataRequest,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from kafkalite.protocol.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderEpochResponsePartition,
    OffsetForLeaderEpochResponseTopic,
)
from kafkalite.protocol.produce import (
    ProduceRequest,
    ProduceResponse,
    ProduceResponseCurrentLeader,
    ProduceResponsePartition,
    ProduceResponseTopic,
)
from kafkalite.protocol.record_batch import BatchHeader, decode_batch, patch_header, validate_batch

HOST = "fake"
BASE_PORT = 9000


class Fault(Enum):
    """What may happen to one request."""

    NONE = "none"
    LOSE_REQUEST = "the connection fails before the request is handled"
    LOSE_ANSWER = "the request is handled, then the connection fails"
    LATE = "the connection fails, and the request is handled a good while later"
    SLOW = "the answer takes long"
    REFUSE = "NOT_ENOUGH_REPLICAS, nothing appended"
    APPEND_UNSURE = "appended, but NOT_ENOUGH_REPLICAS_AFTER_APPEND"
    TIME_OUT = "appended, but REQUEST_TIMED_OUT"
    DENY_LEADERSHIP = "appended, but NOT_LEADER_OR_FOLLOWER"
    UNAVAILABLE = "HTTP 503"
    HANG = "never answered while the connection stays"


Hook = Callable[[str, int, Message], Fault]
"""Asked with the API's name, the broker's id and the request."""


@dataclass
class StoredBatch:
    """A batch in a log."""

    header: BatchHeader
    data: bytes


@dataclass
class FakePartition:
    """One partition's log and leadership."""

    leader: int
    leader_epoch: int = 0
    batches: list[StoredBatch] = field(default_factory=list)
    log_start_offset: int = 0
    acknowledged: int = 0
    """Exclusive end of what a producer was told is written."""
    fenced_answers: int = 0

    @property
    def end(self) -> int:
        return self.batches[-1].header.next_offset if self.batches else self.log_start_offset

    def truncate(self, offset: int) -> None:
        """Drop the batches that reach beyond ``offset``."""
        while self.batches and self.batches[-1].header.next_offset > offset:
            self.batches.pop()

    def end_of_epoch(self, epoch: int) -> tuple[int, int]:
        if epoch == self.leader_epoch:
            return epoch, self.end
        if epoch < 0 or epoch > self.leader_epoch:
            return -1, -1
        end, largest = self.log_start_offset, -1
        for batch in self.batches:
            if batch.header.partition_leader_epoch <= epoch:
                end = batch.header.next_offset
                largest = batch.header.partition_leader_epoch
        return (largest if largest >= 0 else epoch), end

    def sequence_error(self, header: BatchHeader) -> tuple[ErrorCode, int]:
        """Kafka's check of a sequence: an error, or a known duplicate's offset, or (NONE, -1)."""
        mine = [b.header for b in self.batches if b.header.producer_id == header.producer_id]
        if not mine:
            return ErrorCode.NONE, -1
        last = mine[-1]
        for known in mine[-5:]:
            if known.producer_epoch == header.producer_epoch and (
                known.base_sequence,
                known.last_sequence,
            ) == (header.base_sequence, header.last_sequence):
                return ErrorCode.NONE, known.base_offset
        if header.producer_epoch < last.producer_epoch:
            return ErrorCode.INVALID_PRODUCER_EPOCH, -1
        expected = (
            0 if header.producer_epoch > last.producer_epoch else (last.last_sequence + 1) & 0x7FFF_FFFF
        )
        if header.base_sequence != expected:
            return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
        return ErrorCode.NONE, -1

    def records(self) -> list[tuple[int, bytes | None, bytes | None]]:
        """All records as (offset, key, value)."""
        found: list[tuple[int, bytes | None, bytes | None]] = []
        for batch in self.batches:
            columns = decode_batch(batch.data)
            keys = columns.keys if columns.keys is not None else [None] * len(columns)
            found += zip(columns.offsets, keys, columns.values, strict=True)
        return found


class _Connection:
    """One lane to one address."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.broken = asyncio.get_running_loop().create_future()


class FakeCluster:
    """The brokers, and the Transport to them. Use on one loop."""

    def __init__(self, *, brokers: int = 3, max_message_bytes: int = 1_048_588) -> None:
        self.nodes = {i: Address(HOST, BASE_PORT + i) for i in range(1, brokers + 1)}
        self.down: set[int] = set()
        """Brokers that refuse connections."""
        self.controller = 1
        self.max_message_bytes = max_message_bytes
        self.partitions: dict[TopicPartition, FakePartition] = {}
        self.topic_errors: dict[str, ErrorCode] = {}
        self.internal: set[str] = set()
        self.hook: Hook = lambda api, node, request: Fault.NONE
        self.delay = 0.001
        """Seconds that each request takes."""
        self.give_hints = True
        """Whether errors name the current leader."""
        self.metadata_of: Callable[[int], Mapping[TopicPartition, tuple[int, int]]] = lambda node: (
            self.leaders()
        )
        """What each broker believes of leaders and epochs."""
        self.asked: list[tuple[str, int, Message]] = []
        """All requests that reached a broker: API, broker, message."""
        self.next_producer_id = 1000
        self.first_producer_epoch = 0
        self.in_flight: dict[tuple[Address, str], int] = {}
        self.most_in_flight = 0
        self.is_closed = False
        self._connections: dict[tuple[Address, str], _Connection] = {}
        self._late: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()

    # --- What a test does ----------------------------------------------------------------------

    def create_topic(self, name: str, partitions: int = 1) -> None:
        ids = sorted(self.nodes)
        for index in range(partitions):
            self.partitions[TopicPartition(name, index)] = FakePartition(leader=ids[index % len(ids)])

    def leaders(self) -> dict[TopicPartition, tuple[int, int]]:
        return {tp: (p.leader, p.leader_epoch) for tp, p in self.partitions.items()}

    def elect(self, tp: TopicPartition, leader: int, *, keep: int | None = None) -> None:
        """Move leadership; with ``keep`` what lies beyond is cut off, never below what was acknowledged."""
        p = self.partitions[tp]
        if keep is not None:
            p.truncate(max(keep, p.acknowledged))
        p.leader = leader
        p.leader_epoch += 1
        self._notify()

    def truncate_uncleanly(self, tp: TopicPartition, leader: int, offset: int) -> None:
        """An unclean election: acknowledged records are lost."""
        p = self.partitions[tp]
        p.truncate(offset)
        p.acknowledged = min(p.acknowledged, p.end)
        p.leader = leader
        p.leader_epoch += 1
        self._notify()

    def kill(self, node: int) -> None:
        """Connections break, new ones are refused."""
        self.down.add(node)
        for (address, _), connection in list(self._connections.items()):
            if address == self.nodes[node]:
                self._break(connection, "connection reset")

    def values(self, tp: TopicPartition) -> list[bytes | None]:
        return [value for _, _, value in self.partitions[tp].records()]

    def append(self, tp: TopicPartition, data: Buffer, *, acknowledged: bool = True) -> StoredBatch:
        """Append a batch as the leader does; nothing is checked."""
        p = self.partitions[tp]
        patched = patch_header(data, base_offset=p.end, leader_epoch=p.leader_epoch) + bytes(data[61:])
        stored = StoredBatch(BatchHeader.parse(patched), patched)
        p.batches.append(stored)
        if acknowledged:
            p.acknowledged = p.end
        self._notify()
        return stored

    def requests(self, type_: type[Any]) -> list[Any]:
        return [message for _, _, message in self.asked if isinstance(message, type_)]

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # --- The Transport -------------------------------------------------------------------------

    async def ask(
        self,
        address: Address,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: Sequence[Buffer] = (),
        lane: str,
        timeout_ms: int,
    ) -> HttpReply:
        assert method == "POST"
        if self.is_closed:
            raise ConnectionFailed(address, "the transport is closed", sent=False)
        node = next((i for i, a in self.nodes.items() if a == address), None)
        if node is None or node in self.down:
            await asyncio.sleep(self.delay)
            raise ConnectionFailed(address, "connection refused", sent=False)
        connection = self._connections.get((address, lane))
        if connection is None:
            connection = self._connections[address, lane] = _Connection()
        # The bytes leave now: what the sender does to its buffers later changes nothing.
        work = asyncio.get_running_loop().create_task(
            self._serve(connection, node, target.removeprefix("/v1/"), b"".join(body))
        )
        key = (address, lane)
        self.in_flight[key] = self.in_flight.get(key, 0) + 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight[key])
        try:
            done, _ = await asyncio.wait(
                [work, connection.broken], timeout=timeout_ms / 1000, return_when=asyncio.FIRST_COMPLETED
            )
            if work in done:
                return work.result()
            if not done:
                self._break(connection, f"timed out after {timeout_ms} ms")
            raise ConnectionFailed(address, connection.broken.result())
        except asyncio.CancelledError:
            self._break(connection, "given up")
            raise
        finally:
            self.in_flight[key] -= 1
            work.cancel()

    async def disconnect(self) -> None:
        for connection in list(self._connections.values()):
            self._break(connection, "closed")

    async def close(self) -> None:
        self.is_closed = True
        await self.disconnect()
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)

    def _break(self, connection: _Connection, reason: str) -> None:
        for key, other in list(self._connections.items()):
            if other is connection:
                del self._connections[key]
        if not connection.broken.done():
            connection.broken.set_result(reason)

    async def _serve(self, connection: _Connection, node: int, name: str, body: bytes) -> HttpReply:
        async with connection.turn:  # A server answers one request at a time a connection.
            api = APIS[name]
            request = codec.decode(api.request, body)
            await asyncio.sleep(self.delay)
            fault = self.hook(name, node, request)
            if fault is Fault.LOSE_REQUEST:
                self._break(connection, "connection reset")
                await asyncio.Event().wait()
            if fault is Fault.LATE:
                self._late.append(asyncio.get_running_loop().create_task(self._handle_late(node, request)))
                self._break(connection, "connection reset")
                await asyncio.Event().wait()
            if fault is Fault.HANG:
                await asyncio.Event().wait()
            if fault is Fault.UNAVAILABLE:
                refusal = {"error_code": -1, "error": "UNAVAILABLE", "field": None, "message": "starting"}
                return HttpReply(503, [msgspec.msgpack.encode(refusal)])
            if fault is Fault.SLOW:
                await asyncio.sleep(0.7)
            self.asked.append((name, node, request))
            answer = await self._handle(node, request, fault)
            if fault is Fault.LOSE_ANSWER:
                self._break(connection, "connection reset")
                await asyncio.Event().wait()
            return HttpReply(200, [b"".join(codec.encode(answer))])

    async def _handle_late(self, node: int, request: Message) -> None:
        await asyncio.sleep(0.35)
        self.asked.append(("late", node, request))
        await self._handle(node, request, Fault.LATE)

    async def _handle(self, node: int, request: Message, fault: Fault) -> Message:
        match request:
            case MetadataRequest():
                return self._metadata(node, request)
            case ProduceRequest():
                return self._produce(node, request, fault)
            case FetchRequest():
                return await self._fetch(node, request)
            case ListOffsetsRequest():
                return self._list_offsets(node, request)
            case OffsetForLeaderEpochRequest():
                return self._epochs(node, request)
            case InitProducerIdRequest():
                self.next_producer_id += 1
                return InitProducerIdResponse(
                    throttle_time_ms=0,
                    error_code=0,
                    producer_id=self.next_producer_id,
                    producer_epoch=self.first_producer_epoch,
                )
            case CreateTopicsRequest():
                return self._create_topics(node, request)
            case DescribeClusterRequest():
                return DescribeClusterResponse(
                    throttle_time_ms=0,
                    error_code=0,
                    cluster_id="fake-cluster",
                    controller_id=self.controller,
                    brokers=[
                        DescribeClusterResponseBroker(broker_id=i, host=a.host, port=a.port)
                        for i, a in self.nodes.items()
                        if i not in self.down
                    ],
                )
            case DescribeConfigsRequest():
                return self._configs(request)
        raise AssertionError(f"the fake has no {type(request).__name__}")

    # --- The APIs ------------------------------------------------------------------------------

    def _metadata(self, node: int, request: MetadataRequest) -> MetadataResponse:
        view = self.metadata_of(node)
        every = list(dict.fromkeys(tp.topic for tp in view))
        names = every if request.topics is None else [t.name for t in request.topics]
        topics = []
        for name in names:
            assert name is not None
            error = self.topic_errors.get(name)
            if error is None and name not in every:
                error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            partitions = [
                MetadataResponsePartition(
                    error_code=0 if leader >= 0 else ErrorCode.LEADER_NOT_AVAILABLE,
                    partition_index=tp.partition,
                    leader_id=leader,
                    leader_epoch=epoch,
                    replica_nodes=sorted(self.nodes),
                    isr_nodes=sorted(self.nodes),
                )
                for tp, (leader, epoch) in view.items()
                if tp.topic == name and error is None
            ]
            topics.append(
                MetadataResponseTopic(
                    error_code=error or 0,
                    name=name,
                    topic_id=Uuid(f"{name:A<22}"[:22]),
                    is_internal=name in self.internal,
                    partitions=partitions,
                )
            )
        return MetadataResponse(
            brokers=[
                MetadataResponseBroker(node_id=i, host=a.host, port=a.port)
                for i, a in self.nodes.items()
                if i not in self.down
            ],
            cluster_id="fake-cluster",
            controller_id=self.controller,
            topics=topics,
        )

    def _check(self, node: int, tp: TopicPartition, epoch: int = -1) -> ErrorCode:
        p = self.partitions.get(tp)
        if p is None:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        if p.leader != node:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        if 0 <= epoch < p.leader_epoch:
            return ErrorCode.FENCED_LEADER_EPOCH
        if epoch > p.leader_epoch:
            return ErrorCode.UNKNOWN_LEADER_EPOCH
        return ErrorCode.NONE

    def _produce(self, node: int, request: ProduceRequest, fault: Fault) -> ProduceResponse:
        topics = []
        for topic in request.topic_data:
            parts = []
            for part in topic.partition_data:
                assert part.records is not None
                tp = TopicPartition(topic.name, part.index)
                error, base = self._produce_one(node, tp, part.records, fault)
                p = self.partitions.get(tp)
                hint = ProduceResponseCurrentLeader()
                if error == ErrorCode.NOT_LEADER_OR_FOLLOWER and self.give_hints and p is not None:
                    hint = ProduceResponseCurrentLeader(leader_id=p.leader, leader_epoch=p.leader_epoch)
                parts.append(
                    ProduceResponsePartition(
                        index=part.index,
                        error_code=error,
                        base_offset=-1 if request.acks == 0 or error else base,
                        log_start_offset=0,
                        current_leader=hint,
                    )
                )
            topics.append(ProduceResponseTopic(name=topic.name, partition_responses=parts))
        return ProduceResponse(responses=topics)

    def _produce_one(
        self, node: int, tp: TopicPartition, records: memoryview, fault: Fault
    ) -> tuple[ErrorCode, int]:
        error = self._check(node, tp)
        if error:
            return error, -1
        if fault is Fault.REFUSE:
            return ErrorCode.NOT_ENOUGH_REPLICAS, -1
        if len(records) > self.max_message_bytes:
            return ErrorCode.MESSAGE_TOO_LARGE, -1
        header = validate_batch(records, max_message_bytes=self.max_message_bytes, now_ms=2**41)
        p = self.partitions[tp]
        base = -1
        if header.has_producer_id:
            error, base = p.sequence_error(header)
            if error:
                p.fenced_answers += 1
                return error, -1
        if base < 0:
            base = self.append(tp, records, acknowledged=False).header.base_offset
        if fault is Fault.APPEND_UNSURE:
            return ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND, -1
        if fault is Fault.TIME_OUT:
            return ErrorCode.REQUEST_TIMED_OUT, -1
        if fault is Fault.DENY_LEADERSHIP:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER, -1
        if fault is not Fault.LATE:
            p.acknowledged = max(p.acknowledged, base + header.record_count)
        return ErrorCode.NONE, base

    async def _fetch(self, node: int, request: FetchRequest) -> FetchResponse:
        deadline = asyncio.get_running_loop().time() + request.max_wait_ms / 1000
        while True:
            changed = self._changed
            answer, is_due = self._fetch_now(node, request)
            left = deadline - asyncio.get_running_loop().time()
            if is_due or left <= 0:
                return answer
            try:
                async with asyncio.timeout(left):
                    await changed.wait()
            except TimeoutError:
                pass  # The last look is at the top of the loop.

    def _fetch_now(self, node: int, request: FetchRequest) -> tuple[FetchResponse, bool]:
        topics, is_due = [], False
        for topic in request.topics:
            parts = []
            for part in topic.partitions:
                tp = TopicPartition(topic.topic, part.partition)
                error = self._check(node, tp, part.current_leader_epoch)
                p = self.partitions.get(tp)
                if not error:
                    assert p is not None
                    if not p.log_start_offset <= part.fetch_offset <= p.end:
                        error = ErrorCode.OFFSET_OUT_OF_RANGE
                if error:
                    is_due = True
                    hint = FetchResponseCurrentLeader()
                    if p is not None and self.give_hints:
                        hint = FetchResponseCurrentLeader(leader_id=p.leader, leader_epoch=p.leader_epoch)
                    parts.append(
                        FetchResponsePartition(
                            partition_index=part.partition,
                            error_code=error,
                            high_watermark=-1,
                            current_leader=hint,
                        )
                    )
                    continue
                assert p is not None
                chosen: list[bytes] = []
                for batch in p.batches:
                    if batch.header.next_offset <= part.fetch_offset:
                        continue
                    if chosen and sum(map(len, chosen)) + len(batch.data) > part.partition_max_bytes:
                        break
                    chosen.append(batch.data)
                is_due |= bool(chosen)
                parts.append(
                    FetchResponsePartition(
                        partition_index=part.partition,
                        error_code=0,
                        high_watermark=p.end,
                        last_stable_offset=p.end,
                        log_start_offset=p.log_start_offset,
                        records=memoryview(b"".join(chosen)),
                    )
                )
            topics.append(FetchResponseTopic(topic=topic.topic, partitions=parts))
        return FetchResponse(responses=topics), is_due

    def _list_offsets(self, node: int, request: ListOffsetsRequest) -> ListOffsetsResponse:
        topics = []
        for topic in request.topics:
            parts = []
            for part in topic.partitions:
                tp = TopicPartition(topic.name, part.partition_index)
                error = self._check(node, tp, part.current_leader_epoch)
                offset, timestamp = -1, -1
                if not error:
                    p = self.partitions[tp]
                    if part.timestamp == -1:
                        offset = p.end
                    elif part.timestamp == -2:
                        offset = p.log_start_offset
                    else:
                        offset, timestamp = self._at_time(p.batches, part.timestamp)
                parts.append(
                    ListOffsetsResponsePartition(
                        partition_index=part.partition_index,
                        error_code=error,
                        offset=offset,
                        timestamp=timestamp,
                        leader_epoch=0,
                    )
                )
            topics.append(ListOffsetsResponseTopic(name=topic.name, partitions=parts))
        return ListOffsetsResponse(topics=topics)

    @staticmethod
    def _at_time(batches: Iterable[StoredBatch], timestamp: int) -> tuple[int, int]:
        for batch in batches:
            columns = decode_batch(batch.data)
            for index, offset in enumerate(columns.offsets):
                stamps = columns.timestamps
                stamp = stamps if isinstance(stamps, int) else stamps[index]
                if stamp >= timestamp:
                    return offset, stamp
        return -1, -1

    def _epochs(self, node: int, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse:
        topics = []
        for topic in request.topics:
            parts = []
            for part in topic.partitions:
                tp = TopicPartition(topic.topic, part.partition)
                error = self._check(node, tp, part.current_leader_epoch)
                epoch, end = self.partitions[tp].end_of_epoch(part.leader_epoch) if not error else (-1, -1)
                parts.append(
                    OffsetForLeaderEpochResponsePartition(
                        error_code=error, partition=part.partition, leader_epoch=epoch, end_offset=end
                    )
                )
            topics.append(OffsetForLeaderEpochResponseTopic(topic=topic.topic, partitions=parts))
        return OffsetForLeaderEpochResponse(topics=topics)

    def _create_topics(self, node: int, request: CreateTopicsRequest) -> CreateTopicsResponse:
        topics = []
        existing = {tp.topic for tp in self.partitions}
        for topic in request.topics:
            error = ErrorCode.NONE
            if node != self.controller:
                error = ErrorCode.NOT_CONTROLLER
            elif topic.name in existing:
                error = ErrorCode.TOPIC_ALREADY_EXISTS
            elif not request.validate_only:
                self.create_topic(topic.name, max(1, topic.num_partitions))
            topics.append(
                CreateTopicsResponseTopic(
                    name=topic.name,
                    topic_id=Uuid(f"{topic.name:A<22}"[:22]),
                    error_code=error,
                    num_partitions=max(1, topic.num_partitions),
                    replication_factor=max(1, topic.replication_factor),
                )
            )
        return CreateTopicsResponse(topics=topics)

    @staticmethod
    def _configs(request: DescribeConfigsRequest) -> DescribeConfigsResponse:
        return DescribeConfigsResponse(
            throttle_time_ms=0,
            results=[
                DescribeConfigsResponseResult(
                    error_code=0,
                    resource_type=resource.resource_type,
                    resource_name=resource.resource_name,
                    configs=[
                        DescribeConfigsResponseConfig(
                            name="retention.ms",
                            value="604800000",
                            read_only=False,
                            config_source=5,
                            is_sensitive=False,
                        )
                    ],
                )
                for resource in request.resources
            ],
        )


def script(*faults: Fault, api: str = "produce") -> Hook:
    """Inject ``faults`` into the first requests of ``api``, one each, and none later."""
    left = deque(faults)

    def hook(name: str, node: int, request: Message) -> Fault:
        return left.popleft() if name == api and left else Fault.NONE

    return hook
