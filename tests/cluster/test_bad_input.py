"""Bad input on every API of a real broker: a clear error, the broker serves on, the log is unchanged.

Black box: plain HTTP and MessagePack, as a client in another language would send it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import zlib
from collections.abc import Iterator
from typing import Any

import crc32c
import msgpack
import pytest

from kafkalite.cluster.launcher import Cluster
from kafkalite.protocol.api import APIS
from kafkalite.protocol.compression import Compression
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.record_batch import encode_batch

MAX_MESSAGE_BYTES = 65_536

Json = dict[str, Any]


class Client:
    """Asks one broker."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.taken = 0
        """Records that a test meant to be taken."""

    def post(self, api: str, body: bytes, content_type: str = "application/msgpack") -> tuple[int, Json]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", f"/v1/{api}", body, {"Content-Type": content_type, "Accept": "*/*"})
            answer = connection.getresponse()
            data = answer.read()
            kind = answer.getheader("Content-Type")
        finally:
            connection.close()
        if kind == "application/msgpack":
            return answer.status, msgpack.unpackb(data)
        return answer.status, json.loads(data)

    def ask(self, api: str, request: Json) -> Json:
        status, answer = self.post(api, msgpack.packb(request))
        assert status == 200, answer
        return answer

    def produce(self, records: bytes | None, *, topic: str = "t", partition: int = 0, acks: int = -1) -> Json:
        answer = self.ask(
            "produce",
            {
                "acks": acks,
                "timeout_ms": 5000,
                "topic_data": [{"name": topic, "partition_data": [{"index": partition, "records": records}]}],
            },
        )
        result: Json = answer["responses"][0]["partition_responses"][0]
        return result

    def fetch(self, offset: int, *, topic: str = "t", partition: int = 0, **fields: Any) -> Json:
        answer = self.ask(
            "fetch",
            {
                "max_wait_ms": 0,
                "min_bytes": 0,
                "topics": [
                    {
                        "topic": topic,
                        "partitions": [
                            {
                                "partition": partition,
                                "fetch_offset": offset,
                                "partition_max_bytes": 1 << 20,
                                **fields,
                            }
                        ],
                    }
                ],
            },
        )
        result: Json = answer["responses"][0]["partitions"][0]
        return result

    def end_offset(self) -> int:
        answer = self.ask(
            "list_offsets",
            {
                "replica_id": -1,
                "topics": [{"name": "t", "partitions": [{"partition_index": 0, "timestamp": -1}]}],
            },
        )
        offset: int = answer["topics"][0]["partitions"][0]["offset"]
        return offset


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    cluster = Cluster.load_or_create(
        tmp_path_factory.mktemp("bad-input"),
        brokers=1,
        zookeepers=1,
        overrides={
            "message.max.bytes": str(MAX_MESSAGE_BYTES),
            "socket.request.max.bytes": str(1 << 20),
        },
    )
    cluster.up(timeout_s=120)
    one = Client(cluster.layout.brokers[0].port)
    created = one.ask(
        "create_topics",
        {
            "topics": [
                {
                    "name": "t",
                    "num_partitions": 1,
                    "replication_factor": 1,
                    "assignments": [],
                    "configs": [],
                }
            ],
            "timeout_ms": 10_000,
        },
    )
    assert created["topics"][0]["error_code"] == 0, created
    yield one
    cluster.down(timeout_s=60, delete=True)


@pytest.fixture(autouse=True)
def serves_on(client: Client) -> Iterator[None]:
    """After each test: the log is as it was, and the next good record is taken."""
    before = client.end_offset()
    yield
    assert client.end_offset() == before + client.taken, "bad input changed the log"
    before, client.taken = before + client.taken, 0
    result = client.produce(batch())
    assert (result["error_code"], result["base_offset"]) == (0, before)


def batch(values: list[bytes | None] | None = None, **fields: Any) -> bytes:
    timestamps = fields.pop("timestamps", 1_700_000_000_000)
    return bytes(encode_batch(values or [b"good"], timestamps=timestamps, **fields))


def sealed(header_and_body: bytes | bytearray) -> bytes:
    """Give a doctored batch its right checksum, so that only the doctored field is wrong."""
    data = bytearray(header_and_body)
    data[17:21] = crc32c.crc32c(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


# ---- what every API refuses in the same way


@pytest.mark.parametrize("api", sorted(APIS))
@pytest.mark.parametrize("body", [b"", b"\xc1", b"not messagepack", b"\x93\x01", b"\x80\x80"])
def test_not_messagepack(client: Client, api: str, body: bytes) -> None:
    status, answer = client.post(api, body)
    assert status == 400
    assert answer["error"] == "INVALID_REQUEST"
    assert answer["message"]


@pytest.mark.parametrize("api", sorted(APIS))
@pytest.mark.parametrize("body", [[], 7, None, "text"])
def test_not_a_map(client: Client, api: str, body: Any) -> None:
    status, answer = client.post(api, msgpack.packb(body))
    assert status == 400
    assert answer["message"]


@pytest.mark.parametrize("api", sorted(APIS))
def test_wrong_type_of_each_field_names_the_field(client: Client, api: str) -> None:
    for field in APIS[api].describe()["request"]:
        wrong: Any = {"x": 1} if field["type"] != "struct" else "x"
        complete = {other["name"]: _zero(other) for other in APIS[api].describe()["request"]}
        status, answer = client.post(api, msgpack.packb({**complete, field["name"]: wrong}))
        assert status == 400, (field, answer)
        assert field["name"] in answer["field"], answer


def _zero(field: Json) -> Any:
    if field.get("nullable"):
        return None
    return {"array": [], "string": "", "bool": False, "bytes": b"", "float64": 0.0, "struct": {}}.get(
        field["type"], 0
    )


@pytest.mark.parametrize("api", sorted(APIS))
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
def test_other_content_types(client: Client, api: str, content_type: str) -> None:
    status, answer = client.post(api, b"{}", content_type)
    assert status == 415
    assert "application/msgpack" in answer["message"]


@pytest.mark.parametrize("api", sorted(APIS))
def test_oversize_body(client: Client, api: str) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as connection:
        head = f"POST /v1/{api} HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\n"
        connection.sendall(f"{head}Content-Length: {(1 << 20) + 1}\r\n\r\n".encode())
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("api", sorted(APIS))
def test_body_that_stops_halfway(client: Client, api: str) -> None:
    body = msgpack.packb({"acks": 1, "timeout_ms": 1, "topic_data": []})
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as connection:
        head = f"POST /v1/{api} HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2])
    # The connection is gone; that the broker serves on is checked by the fixture.


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Content-Length: 4\r\nContent-Length: 9",
        "Content-Length: 4\r\n\tfolded",
        "Content-Length: +4",
        "Content-Length : 4",
        f"X-A: {'a' * 20_000}\r\nContent-Length: 4",
    ],
)
def test_a_request_whose_end_could_be_disputed(client: Client, framing: str) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as connection:
        head = f"POST /v1/metadata HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
        connection.sendall(head.encode() + b"\x80" * 4 + b"POST /v1/metadata HTTP/1.1\r\n")
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.partition(b" ")[2].startswith(b"400 "), answer[:200]
    assert b"INVALID_REQUEST" in answer
    assert answer.count(b"HTTP/1.") == 1, "what follows it is not served"


def test_unknown_api(client: Client) -> None:
    status, answer = client.post("no_such_api", msgpack.packb({}))
    assert status == 404
    assert "GET /v1" in answer["message"]


def test_get_of_an_api_that_changes_things(client: Client) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    connection.request("GET", "/v1/produce")
    assert connection.getresponse().status == 405
    connection.close()


# ---- produce


def test_produce_unknown_topic_and_partition(client: Client) -> None:
    for place in ({"topic": "nowhere"}, {"partition": 7}, {"partition": -1}):
        result = client.produce(batch(), **place)
        assert result["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_produce_invalid_acks(client: Client) -> None:
    assert client.produce(batch(), acks=2)["error_code"] == ErrorCode.INVALID_REQUIRED_ACKS


@pytest.mark.parametrize("position", [17, 21, 27, 61, -1])
def test_produce_flipped_byte(client: Client, position: int) -> None:
    damaged = bytearray(batch([b"good" * 10]))
    damaged[position] ^= 0x10
    assert client.produce(bytes(damaged))["error_code"] == ErrorCode.CORRUPT_MESSAGE


def test_produce_every_truncation(client: Client) -> None:
    whole = batch()
    for size in (*range(len(whole)),):
        code = client.produce(whole[:size])["error_code"]
        assert code in (ErrorCode.CORRUPT_MESSAGE, ErrorCode.INVALID_RECORD), size


def test_produce_no_records(client: Client) -> None:
    assert client.produce(None)["error_code"] != 0


def test_produce_two_batches(client: Client) -> None:
    assert client.produce(batch() + batch())["error_code"] == ErrorCode.INVALID_RECORD


def test_produce_too_large(client: Client) -> None:
    result = client.produce(batch([b"x" * (MAX_MESSAGE_BYTES + 1)]))
    assert result["error_code"] == ErrorCode.MESSAGE_TOO_LARGE
    assert str(MAX_MESSAGE_BYTES) in result["error_message"]


def test_produce_counts_that_lie(client: Client) -> None:
    for start, size in ((57, 4), (23, 4)):
        doctored = bytearray(batch([b"a", b"b"]))
        doctored[start : start + size] = (99).to_bytes(size, "big")
        assert client.produce(sealed(doctored))["error_code"] == ErrorCode.INVALID_RECORD


def test_produce_negative_offset_and_sequence(client: Client) -> None:
    doctored = bytearray(batch())
    doctored[0:8] = (-5).to_bytes(8, "big", signed=True)
    assert client.produce(bytes(doctored))["error_code"] == ErrorCode.INVALID_RECORD
    with_producer = batch(producer_id=1000, producer_epoch=0, base_sequence=0)
    doctored = bytearray(with_producer)
    doctored[53:57] = (-7).to_bytes(4, "big", signed=True)
    assert client.produce(sealed(doctored))["error_code"] == ErrorCode.INVALID_RECORD


@pytest.mark.parametrize(
    "columns",
    [
        b"not messagepack",
        msgpack.packb([None, 0, None]),
        msgpack.packb([None, 0, None, [b"a", b"b"], None]),
        msgpack.packb([None, 0, None, ["text"], None]),
        msgpack.packb([None, "x", None, [b"a"], None]),
        msgpack.packb([None, 0, [b"k", b"k"], [b"a"], None]),
        msgpack.packb([[5], 0, None, [b"a"], None]),
        msgpack.packb([None, 0, None, [b"a"], [[["name"]]]]),
        msgpack.packb([None, 0, None, [b"a"], None]) + b"\x00",
    ],
)
def test_produce_a_body_that_is_no_columns(client: Client, columns: bytes) -> None:
    head = bytearray(batch([b"a"])[:61])
    head[8:12] = (49 + len(columns)).to_bytes(4, "big")
    code = client.produce(sealed(head + columns))["error_code"]
    assert code in (ErrorCode.CORRUPT_MESSAGE, ErrorCode.INVALID_RECORD)


def test_produce_compression_bomb(client: Client) -> None:
    body = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*(body.compress(bytes(1 << 20)) for _ in range(40)), body.flush()])
    head = bytearray(batch([b"a"])[:61])
    head[8:12] = (49 + len(bomb)).to_bytes(4, "big")
    head[21:23] = int(Compression.GZIP).to_bytes(2, "big")
    assert len(bomb) < MAX_MESSAGE_BYTES
    assert client.produce(sealed(head + bomb))["error_code"] == ErrorCode.MESSAGE_TOO_LARGE


def test_produce_unknown_compression(client: Client) -> None:
    doctored = bytearray(batch())
    doctored[21:23] = (7).to_bytes(2, "big")
    code = client.produce(sealed(doctored))["error_code"]
    assert code in (ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, ErrorCode.INVALID_RECORD)


def test_produce_out_of_order_and_duplicate_sequence(client: Client) -> None:
    producer_id = client.ask("init_producer_id", {"transaction_timeout_ms": 0})["producer_id"]
    ahead = batch(producer_id=producer_id, producer_epoch=0, base_sequence=5)
    first = client.produce(ahead)
    assert first["error_code"] == 0, "an unknown producer may start anywhere"
    client.taken = 1
    gap = client.produce(batch(producer_id=producer_id, producer_epoch=0, base_sequence=9))
    assert gap["error_code"] == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    again = client.produce(ahead)
    assert (again["error_code"], again["base_offset"]) == (0, first["base_offset"])
    old = client.produce(batch(producer_id=producer_id, producer_epoch=-1, base_sequence=6))
    assert old["error_code"] != 0


# ---- fetch and offsets


def test_fetch_unknown_topic_and_partition(client: Client) -> None:
    assert client.fetch(0, topic="nowhere")["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert client.fetch(0, partition=9)["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_fetch_offsets_out_of_range(client: Client) -> None:
    assert client.fetch(-1)["error_code"] == ErrorCode.OFFSET_OUT_OF_RANGE
    assert client.fetch(1 << 40)["error_code"] == ErrorCode.OFFSET_OUT_OF_RANGE


def test_fetch_wrong_leader_epochs(client: Client) -> None:
    assert client.fetch(0, current_leader_epoch=99)["error_code"] == ErrorCode.UNKNOWN_LEADER_EPOCH


def test_list_offsets_of_what_is_not_there(client: Client) -> None:
    answer = client.ask(
        "list_offsets",
        {
            "replica_id": -1,
            "topics": [{"name": "x", "partitions": [{"partition_index": 0, "timestamp": -1}]}],
        },
    )
    assert answer["topics"][0]["partitions"][0]["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


# ---- topics


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": "t"}, ErrorCode.TOPIC_ALREADY_EXISTS),
        ({"name": ""}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"name": "a/b"}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"name": ".."}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"name": "x" * 250}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"num_partitions": 0}, ErrorCode.INVALID_PARTITIONS),
        ({"replication_factor": 2}, ErrorCode.INVALID_REPLICATION_FACTOR),
        ({"replication_factor": 0}, ErrorCode.INVALID_REPLICATION_FACTOR),
        ({"configs": [{"name": "no.such.config", "value": "1"}]}, ErrorCode.INVALID_CONFIG),
        ({"configs": [{"name": "retention.ms", "value": "soon"}]}, ErrorCode.INVALID_CONFIG),
        ({"configs": [{"name": "cleanup.policy", "value": "compact"}]}, ErrorCode.INVALID_CONFIG),
        (
            {
                "num_partitions": -1,
                "replication_factor": -1,
                "assignments": [{"partition_index": 1, "broker_ids": [1]}],
            },
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        ),
    ],
)
def test_create_topics(client: Client, fields: Json, code: ErrorCode) -> None:
    topic = {
        "name": "fresh",
        "num_partitions": 1,
        "replication_factor": 1,
        "assignments": [],
        "configs": [],
        **fields,
    }
    answer = client.ask("create_topics", {"topics": [topic], "timeout_ms": 5000})
    (result,) = answer["topics"]
    assert result["error_code"] == code, result
    assert result["error_message"]
    assert "fresh" not in [one["name"] for one in client.ask("metadata", {"topics": None})["topics"]]


# ---- orders of the controller


@pytest.mark.parametrize("api", ["leader_and_isr", "update_metadata", "stop_replica"])
def test_orders_of_an_old_controller_and_to_an_earlier_life(client: Client, api: str) -> None:
    empty = {"controller_id": 1, "topic_states": [], "live_leaders": [], "live_brokers": []}
    old = client.ask(api, {**empty, "controller_epoch": 0})
    assert old["error_code"] == ErrorCode.STALE_CONTROLLER_EPOCH
    earlier = client.ask(api, {**empty, "controller_epoch": 1, "broker_epoch": 0})
    assert earlier["error_code"] == ErrorCode.STALE_BROKER_EPOCH


def test_controlled_shutdown_of_nobody(client: Client) -> None:
    answer = client.ask("controlled_shutdown", {"broker_id": 42})
    assert answer["error_code"] == ErrorCode.BROKER_NOT_AVAILABLE


def test_allocate_producer_ids_for_nobody(client: Client) -> None:
    answer = client.ask("allocate_producer_ids", {"broker_id": 42, "broker_epoch": 1})
    assert answer["error_code"] in (ErrorCode.BROKER_ID_NOT_REGISTERED, ErrorCode.STALE_BROKER_EPOCH)


async def test_many_at_once(client: Client) -> None:
    """A hundred bad requests side by side: each gets its answer."""
    answers = await asyncio.gather(
        *(asyncio.to_thread(client.post, "produce", b"\xc1" * number) for number in range(1, 101))
    )
    assert {status for status, _ in answers} == {400}
