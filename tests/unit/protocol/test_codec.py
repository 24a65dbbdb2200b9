"""The codec: what it refuses and how it says so, queries, and batches that are not copied."""

import base64
import json
import resource
from typing import Any

import msgspec
import pytest

from kafkalite.protocol.api import APIS
from kafkalite.protocol.codec import SchemaError, decode, encode, from_query, to_json
from kafkalite.protocol.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from kafkalite.protocol.fetch import FetchResponse, FetchResponsePartition, FetchResponseTopic
from kafkalite.protocol.init_producer_id import InitProducerIdRequest
from kafkalite.protocol.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from kafkalite.protocol.metadata import MetadataRequest, MetadataTopic
from kafkalite.protocol.produce import ProducePartition, ProduceRequest, ProduceTopic

pack = msgspec.msgpack.encode


def produce(**changes: Any) -> dict[str, Any]:
    partition = {"index": 0, "records": b"batch"}
    return {
        "acks": 1,
        "timeout_ms": 1000,
        "topic_data": [{"name": "orders", "partition_data": [partition]}],
        **changes,
    }


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (
            pack(produce(topic_data=[{"name": 7, "partition_data": []}])),
            "topic_data[0].name",
            "expected str, got int",
        ),
        (pack(produce(acks="all")), "acks", "expected int, got str"),
        (pack(produce(acks=True)), "acks", "expected int, got bool"),
        (pack(produce(acks=40000)), "acks", "expected int <= 32767"),
        (pack(produce(topic_data=None)), "topic_data", "expected array, got nil"),
        (pack(produce(topic_data={})), "topic_data", "expected array, got map"),
        (pack(produce(topic_data=[{}])), "topic_data[0].name", "required field is missing"),
        (
            pack(produce(topic_data=[{"name": "a", "partition_data": [{"index": 0, "records": "text"}]}])),
            "topic_data[0].partition_data[0].records",
            "expected bytes or nil, got str",
        ),
        (pack({"timeout_ms": 1, "topic_data": []}), "acks", "required field is missing"),
        (pack({1: 2}), None, "the name of a field: expected str, got int"),
        (
            pack(produce(topic_data=[{None: 2}])),
            "topic_data[0]",
            "the name of a field: expected str, got nil",
        ),
        (pack([]), None, "expected map, got array"),
        (pack(None), None, "expected map, got nil"),
        (b"", None, "the MessagePack data ends too early"),
        (pack(produce())[:-3], None, "the MessagePack data ends too early"),
        (b"\xdd\xff\xff\xff\xff", None, "expected map, got array"),
        (b"\x81\xa4acks\x91", "acks", "expected int, got array"),
    ],
)
def test_a_body_that_is_not_the_message_names_the_field_and_the_reason(
    body: bytes, field: str | None, message: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        decode(ProduceRequest, body)
    assert (caught.value.field, caught.value.message) == (field, message)
    assert str(caught.value) == (f"{field}: {message}" if field else message)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (pack(produce()) + b"\xc0", "trailing"),
        (b"\xc1", "malformed"),
        (b"\x81\xa4acks\xc1", "malformed"),
        (b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0", "nested too deeply"),
        (b"\x81\xa1x" + b"\x81\xa1x" * 100_000 + b"\xc0", "nested too deeply"),
        (pack({"acks": 1, "timeout_ms": 1, "transactional_id": "tx"})[:-2] + b"\xff\xff", "UTF-8"),
        (b'{"acks": 1}', ""),
    ],
)
def test_what_is_not_messagepack_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(SchemaError) as caught:
        decode(ProduceRequest, body)
    assert words in caught.value.message


def test_a_claimed_size_allocates_nothing() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    claims = b"\x81\xaatopic_data" + b"\xdd\x7f\xff\xff\xff"
    with pytest.raises(SchemaError, match="too early"):
        decode(ProduceRequest, claims)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KB


def test_unknown_fields_are_ignored_and_absent_ones_take_their_default() -> None:
    request = decode(MetadataRequest, pack({"surprise": [1, {"a": b"b"}]}))
    assert request == MetadataRequest()
    assert request.topics is None
    assert request.allow_auto_topic_creation is True


def test_a_nullable_field_without_a_default_may_be_absent() -> None:
    assert decode(InitProducerIdRequest, pack({"transaction_timeout_ms": 1})).transactional_id is None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_records_are_views_of_the_body(kind: Any) -> None:
    body = kind(pack(produce()))
    records = decode(ProduceRequest, body).topic_data[0].partition_data[0].records
    assert records is not None
    assert bytes(records) == b"batch"
    assert isinstance(records, memoryview)


def test_a_view_shares_the_memory_of_the_body() -> None:
    body = bytearray(pack(produce()))
    records = decode(ProduceRequest, body).topic_data[0].partition_data[0].records
    assert records is not None
    body[body.index(b"batch")] = ord("B")
    assert bytes(records) == b"Batch"


def test_batches_that_are_not_small_are_sent_as_they_lie() -> None:
    batches = [memoryview(b"x" * size) for size in (5000, 10, 70_000)]
    partitions = [ProducePartition(index=i, records=batch) for i, batch in enumerate(batches)]
    request = ProduceRequest(
        acks=1, timeout_ms=5, topic_data=[ProduceTopic(name="a", partition_data=partitions)]
    )
    pieces = encode(request)
    assert [piece for piece in pieces if any(piece is batch for batch in batches)] == batches[::2]
    assert b"".join(pieces) == pack(request)
    assert decode(ProduceRequest, b"".join(pieces)) == request


def test_a_fetch_answer_keeps_what_follows_the_batches() -> None:
    empty = FetchResponsePartition(partition_index=0, error_code=1, high_watermark=-1)
    nothing = FetchResponsePartition(
        partition_index=1, error_code=0, high_watermark=5, records=memoryview(b"")
    )
    answer = FetchResponse(
        responses=[FetchResponseTopic(topic="a", partitions=[empty, nothing] * 20)] * 20, session_id=9
    )
    assert b"".join(encode(answer)) == pack(answer)


def test_a_message_without_batches_is_one_piece() -> None:
    assert encode(MetadataRequest()) == [pack(MetadataRequest())]


def test_json_has_bytes_in_base64() -> None:
    partition = ProducePartition(index=0, records=memoryview(b"\x00\xffbatch"))
    request = ProduceRequest(
        acks=-1, timeout_ms=5, topic_data=[ProduceTopic(name="a", partition_data=[partition])]
    )
    read = json.loads(to_json(request))
    text = read["topic_data"][0]["partition_data"][0]["records"]
    assert base64.b64decode(text) == b"\x00\xffbatch"
    assert read["transactional_id"] is None


# --- Queries ---------------------------------------------------------------------------------


def test_a_list_of_structs_goes_by_its_singular() -> None:
    topics = [MetadataTopic(name="a"), MetadataTopic(name="b")]
    wanted = MetadataRequest(topics=topics, allow_auto_topic_creation=False)
    assert from_query(MetadataRequest, {"topic": ["a", "b"]}) == wanted
    assert from_query(MetadataRequest, {"topics": ["a", "b"]}) == wanted
    assert from_query(MetadataRequest, {"topics.name": ["a", "b"]}) == wanted
    assert from_query(MetadataRequest, {"name": ["a", "b"], "unheard_of": ["1"]}) == wanted


def test_nothing_asked_means_all_and_creates_nothing() -> None:
    request = from_query(MetadataRequest, {})
    assert request.topics is None
    assert request.allow_auto_topic_creation is False
    asked = from_query(MetadataRequest, {"allow_auto_topic_creation": ["true"]})
    assert asked.allow_auto_topic_creation is True


def test_who_asks_for_offsets_is_a_consumer_and_means_the_latest() -> None:
    request = from_query(ListOffsetsRequest, {"topic": ["a"], "partition": ["0", "1"]})
    partitions = [ListOffsetsPartition(partition_index=i, timestamp=-1) for i in (0, 1)]
    assert request == ListOffsetsRequest(
        replica_id=-1, topics=[ListOffsetsTopic(name="a", partitions=partitions)]
    )


def test_one_value_holds_for_all_and_several_go_one_each() -> None:
    query = {
        "topic": ["a", "b"],
        "partition": ["0", "1"],
        "timestamp": ["-2"],
        "current_leader_epoch": ["5", "6"],
    }
    partitions = [
        ListOffsetsPartition(partition_index=0, timestamp=-2, current_leader_epoch=5),
        ListOffsetsPartition(partition_index=1, timestamp=-2, current_leader_epoch=6),
    ]
    assert from_query(ListOffsetsRequest, query).topics == [
        ListOffsetsTopic(name="a", partitions=partitions),
        ListOffsetsTopic(name="b", partitions=partitions),
    ]


def test_a_list_of_scalars_takes_all_values() -> None:
    query = {"resource_type": ["2"], "resource": ["orders"], "configuration_key": ["a", "b"]}
    resource_ = DescribeConfigsResource(
        resource_type=2, resource_name="orders", configuration_keys=["a", "b"]
    )
    assert from_query(DescribeConfigsRequest, query) == DescribeConfigsRequest(resources=[resource_])


@pytest.mark.parametrize(
    ("api", "query", "field", "words"),
    [
        ("list_offsets", {"partition": ["1"]}, "topics.name", "missing"),
        (
            "list_offsets",
            {"topic": ["a"], "partition": ["x"]},
            "topics.partitions.partition_index",
            "expected int",
        ),
        (
            "list_offsets",
            {"topic": ["a"], "partition": ["1", "2"], "timestamp": ["1", "2", "3"]},
            "topics.partitions.partition_index",
            "2 values",
        ),
        ("describe_cluster", {"endpoint_type": ["1000"]}, "endpoint_type", "127"),
        ("describe_cluster", {"endpoint_type": ["1", "2"]}, "endpoint_type", "one value"),
        (
            "describe_cluster",
            {"include_cluster_authorized_operations": ["maybe"]},
            "include_cluster_authorized_operations",
            "true or false",
        ),
    ],
)
def test_a_query_that_does_not_fit_names_the_parameter(
    api: str, query: dict[str, list[str]], field: str, words: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        from_query(APIS[api].request, query)
    assert caught.value.field == field
    assert words in caught.value.message


@pytest.mark.parametrize("name", [name for name, api in APIS.items() if api.read_only])
def test_every_read_only_api_answers_a_bare_get(name: str) -> None:
    assert isinstance(from_query(APIS[name].request, {}), APIS[name].request)
