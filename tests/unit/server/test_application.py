"""The application without a server: requests in, replies out."""

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pytest

from kafkalite.common import BrokerId, TopicPartition, Uuid
from kafkalite.edge import HttpReply, HttpRequest
from kafkalite.journal import EventId, Journal
from kafkalite.protocol.api import APIS
from kafkalite.protocol.create_topics import CreateTopicsRequest, CreateTopicsResponse
from kafkalite.protocol.describe_cluster import DescribeClusterResponse
from kafkalite.protocol.errors import BrokerError, ErrorCode, NotControllerError, UnknownServerError
from kafkalite.protocol.fetch import (
    FetchRequest,
    FetchResponse,
    FetchResponsePartition,
    FetchResponseTopic,
)
from kafkalite.protocol.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from kafkalite.protocol.leader_and_isr import LeaderAndIsrResponse
from kafkalite.protocol.message import Message
from kafkalite.protocol.metadata import MetadataRequest, MetadataResponse
from kafkalite.server.application import (
    ORDERS,
    Application,
    BrokerState,
    RequestContext,
    _whole_response,
)
from kafkalite.server.metrics import BrokerMetrics

CLUSTER = Uuid("4L6g3nShT-eMCtK--X86sw")


class StoppedClock:
    def wall_ms(self) -> int:
        return 1_700_000_000_000

    def monotonic(self) -> float:
        return 0.0


class Setup:
    """A running broker's application with handlers of one's own."""

    def __init__(self, *, capacity: int = 100) -> None:
        clock = StoppedClock()
        self.journal = Journal(BrokerId(3), clock, capacity=capacity)
        self.metrics = BrokerMetrics()
        self.application = Application(
            broker_id=BrokerId(3), journal=self.journal, metrics=self.metrics, clock=clock
        )
        self.application.cluster_id = CLUSTER
        self.application.state = BrokerState.RUNNING
        self.seen: list[tuple[Any, RequestContext]] = []

    def answers(self, api: str, response: Message | Exception) -> None:
        async def handler(request: Any, context: RequestContext) -> Message:
            self.seen.append((request, context))
            if isinstance(response, Exception):
                raise response
            return response

        self.application.register(api, handler)

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, list[str]] | None = None,
        correlation_id: str | None = None,
    ) -> HttpReply:
        if headers is None:
            headers = {"content-type": "application/msgpack"} if method == "POST" else {}
        return await self.application(
            HttpRequest(
                *(method, path, query or {}, headers, memoryview(body), "INTERNAL", "127.0.0.1:5"),
                correlation_id=correlation_id,
            )
        )


@pytest.fixture
def setup() -> Setup:
    return Setup()


def packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def content(reply: HttpReply) -> bytes:
    return b"".join(reply.body)


def refusal(reply: HttpReply) -> dict[str, Any]:
    assert reply.headers["Content-Type"] == "application/json"
    body = json.loads(content(reply))
    assert set(body) == {"error_code", "error", "field", "message"}
    assert ErrorCode(body["error_code"]).name == body["error"]
    assert isinstance(body, dict)
    return body


METADATA = MetadataResponse(brokers=[], topics=[], controller_id=1)


async def test_a_request_becomes_a_message_and_the_response_messagepack(setup: Setup) -> None:
    setup.answers("metadata", METADATA)
    headers = {
        "content-type": "application/msgpack",
        "x-client-id": "me",
        "x-cause-id": "1-2-3",
    }
    body = packed({"topics": [{"name": "orders"}], "from_the_future": 1})
    reply = await setup.ask("POST", "/v1/metadata", body, headers=headers, correlation_id="77")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/msgpack"
    assert reply.correlation_id == "77"
    assert msgspec.msgpack.decode(content(reply))["controller_id"] == 1
    ((request, context),) = setup.seen
    assert isinstance(request, MetadataRequest)
    assert request.topics is not None
    assert request.topics[0].name == "orders"
    assert context == RequestContext("INTERNAL", "me", "77", EventId("1-2-3"), "127.0.0.1:5")


async def test_json_on_request_has_bytes_in_base64(setup: Setup) -> None:
    partition = FetchResponsePartition(
        partition_index=0, error_code=0, high_watermark=1, records=memoryview(b"\x00batch")
    )
    setup.answers("fetch", FetchResponse(responses=[FetchResponseTopic(topic="t", partitions=[partition])]))
    request = msgspec.msgpack.encode(FetchRequest(max_wait_ms=0, min_bytes=0, topics=[]))
    headers = {"content-type": "application/msgpack", "accept": "text/html, application/json"}
    reply = await setup.ask("POST", "/v1/fetch", request, headers=headers)
    body = json.loads(content(reply))
    assert base64.b64decode(body["responses"][0]["partitions"][0]["records"]) == b"\x00batch"


async def test_get_serves_read_only_apis_in_json(setup: Setup) -> None:
    setup.answers("metadata", METADATA)
    reply = await setup.ask("GET", "/v1/metadata", query={"topic": ["a", "b"]})
    assert reply.status == 200
    assert json.loads(content(reply))["controller_id"] == 1
    ((request, _),) = setup.seen
    assert [topic.name for topic in request.topics] == ["a", "b"]


async def test_a_bad_query_parameter_is_named(setup: Setup) -> None:
    setup.answers("metadata", METADATA)
    reply = await setup.ask("GET", "/v1/metadata", query={"allow_auto_topic_creation": ["perhaps"]})
    assert reply.status == 400
    assert refusal(reply)["field"] == "allow_auto_topic_creation"
    assert setup.seen == []


@pytest.mark.parametrize(
    ("body", "field", "word"),
    [
        (b"", None, "end"),
        (b"\xc1", None, "MessagePack"),
        (b"hello", None, ""),
        (packed({"topics": [], "timeout_ms": "soon"}), "timeout_ms", "int"),
        (packed({}), "topics", "required"),
        (packed({"topics": [{"name": 7}]}), "topics[0].name", "str"),
        (packed({"topics": [], "timeout_ms": 2**31}), "timeout_ms", ""),
        (packed([1, 2]), None, "map"),
        (packed({"topics": []}) + b"\x00", None, ""),
        (b"\x91" * 100_000, None, ""),
    ],
)
async def test_a_body_that_is_not_the_schema_says_which_field_and_why(
    setup: Setup, body: bytes, field: str | None, word: str
) -> None:
    setup.answers("create_topics", CreateTopicsResponse(topics=[]))
    reply = await setup.ask("POST", "/v1/create_topics", body)
    assert reply.status == 400
    said = refusal(reply)
    assert (said["error"], said["field"]) == ("INVALID_REQUEST", field)
    assert word in said["message"]
    assert said["message"]
    assert setup.seen == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"content-type": "text/plain"},
        {"content-type": "application/msgpack", "content-encoding": "gzip"},
    ],
)
async def test_other_bodies_than_plain_messagepack_are_415(setup: Setup, headers: dict[str, str]) -> None:
    setup.answers("metadata", METADATA)
    reply = await setup.ask("POST", "/v1/metadata", packed({}), headers=headers)
    assert reply.status == 415
    assert "must" in refusal(reply)["message"]
    assert setup.seen == []


async def test_a_content_type_may_have_parameters(setup: Setup) -> None:
    setup.answers("metadata", METADATA)
    headers = {"content-type": "Application/MsgPack; charset=x"}
    assert (await setup.ask("POST", "/v1/metadata", packed({}), headers=headers)).status == 200


@pytest.mark.parametrize(
    "path", ["/v1/metadatas", "/v2/metadata", "/", "/metadata", "/v1/metadata/x", "/v1/produce"]
)
async def test_what_is_not_there_is_404(setup: Setup, path: str) -> None:
    setup.answers("metadata", METADATA)
    reply = await setup.ask("POST", path, packed({}), headers={})
    assert reply.status == 404
    assert path in refusal(reply)["message"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/metadata", "GET, POST"),
        ("GET", "/v1/create_topics", "POST"),
        ("POST", "/v1/health", "GET"),
        ("DELETE", "/v1/events", "GET"),
        ("POST", "/metrics", "GET"),
        ("POST", "/v1", "GET"),
    ],
)
async def test_a_method_that_is_not_answered_is_405_and_says_which_is(
    setup: Setup, method: str, path: str, allow: str
) -> None:
    setup.answers("metadata", METADATA)
    setup.answers("create_topics", CreateTopicsResponse(topics=[]))
    reply = await setup.ask(method, path)
    assert (reply.status, reply.headers["Allow"]) == (405, allow)
    refusal(reply)


@pytest.mark.parametrize("state", list(BrokerState))
async def test_until_it_runs_and_once_it_stops_only_health_answers(setup: Setup, state: BrokerState) -> None:
    setup.answers("metadata", METADATA)
    setup.application.state = state
    health = await setup.ask("GET", "/v1/health")
    body = json.loads(content(health))
    assert (body["broker_id"], body["cluster_id"], body["state"]) == (3, CLUSTER, state.name)
    for path in ("/v1/metadata", "/v1/events", "/v1", "/metrics", "/nowhere"):
        reply = await setup.ask("GET", path)
        if state in (BrokerState.RUNNING, BrokerState.PENDING_CONTROLLED_SHUTDOWN):
            assert reply.status == (404 if path == "/nowhere" else 200)
        else:
            assert reply.status == 503
            assert reply.headers["Retry-After"]
            assert state.name in refusal(reply)["message"]


async def test_health_answers_before_anything_is_known() -> None:
    setup = Setup()
    setup.application.broker_id, setup.application.cluster_id = None, None
    setup.application.state = BrokerState.STARTING
    reply = await setup.ask("GET", "/v1/health")
    body = json.loads(content(reply))
    assert (body["broker_id"], body["cluster_id"], body["state"]) == (None, None, "STARTING")


async def test_orders_wait_for_a_broker_epoch_and_nothing_else_does(setup: Setup) -> None:
    for name in ORDERS:
        setup.answers(name, LeaderAndIsrResponse(error_code=0))
    setup.answers("metadata", METADATA)
    for name in ORDERS:
        reply = await setup.ask("POST", f"/v1/{name}", b"whatever")
        assert (reply.status, refusal(reply)["error"]) == (503, "BROKER_NOT_AVAILABLE")
    assert (await setup.ask("POST", "/v1/metadata", packed({}))).status == 200
    setup.application.has_broker_epoch = True
    for name in ORDERS:
        assert (await setup.ask("POST", f"/v1/{name}", b"whatever")).status == 400


async def test_the_cause_of_a_request_is_ambient_while_it_is_handled(setup: Setup) -> None:
    async def handler(request: CreateTopicsRequest, context: RequestContext) -> CreateTopicsResponse:
        setup.journal.record("TopicCreated", topic="t")
        return CreateTopicsResponse(topics=[])

    setup.application.register("create_topics", handler)
    headers = {"content-type": "application/msgpack", "x-cause-id": "9-8-7"}
    await setup.ask("POST", "/v1/create_topics", packed({"topics": []}), headers=headers)
    await setup.ask("POST", "/v1/create_topics", packed({"topics": []}))
    assert [event.cause for event in setup.journal.events()] == ["9-8-7", None]


async def test_an_error_of_the_whole_request_goes_into_the_responses_own_code(setup: Setup) -> None:
    setup.answers("init_producer_id", NotControllerError("ask broker 2"))
    request = msgspec.msgpack.encode(InitProducerIdRequest(transaction_timeout_ms=1))
    reply = await setup.ask("POST", "/v1/init_producer_id", request)
    assert reply.status == 200
    response = msgspec.msgpack.decode(content(reply), type=InitProducerIdResponse)
    assert response.error_code == ErrorCode.NOT_CONTROLLER


async def test_an_error_message_goes_along_where_there_is_room(setup: Setup) -> None:
    setup.answers("describe_cluster", NotControllerError("ask broker 2"))
    reply = await setup.ask("GET", "/v1/describe_cluster")
    response = msgspec.json.decode(content(reply), type=DescribeClusterResponse)
    assert (response.error_code, response.error_message) == (41, "ask broker 2")


@pytest.mark.parametrize(
    ("error", "code"), [(NotControllerError("x"), 41), (ValueError("secret"), -1), (UnknownServerError(), -1)]
)
async def test_what_a_response_has_no_place_for_is_500_with_a_type_and_no_trace(
    setup: Setup, caplog: pytest.LogCaptureFixture, error: Exception, code: int
) -> None:
    setup.answers("metadata", error)
    reply = await setup.ask("POST", "/v1/metadata", packed({}))
    assert reply.status == 500
    said = refusal(reply)
    assert (said["error_code"], said["message"]) == (code, type(error).__name__)
    assert any(record.exc_info for record in caplog.records), "the trace is in the log"


@pytest.mark.parametrize(
    "api", [api for api in APIS.values() if "error_code" in api.response.__struct_fields__]
)
async def test_every_response_with_a_code_of_its_own_can_carry_an_error(setup: Setup, api: Any) -> None:

    response = _whole_response(api.response, BrokerError("no"))
    if "error_code" not in api.response.__struct_fields__:
        assert response is None
        return
    again: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(response), type=api.response)
    assert again.error_code == -1


async def test_the_catalogue_lists_what_is_served_with_its_fields(setup: Setup) -> None:
    setup.answers("metadata", METADATA)
    first = json.loads(content(await setup.ask("GET", "/v1")))
    assert [api["name"] for api in first["apis"]] == ["metadata"]
    setup.answers("create_topics", CreateTopicsResponse(topics=[]))
    apis = {api["name"]: api for api in json.loads(content(await setup.ask("GET", "/v1")))["apis"]}
    assert set(apis) == {"metadata", "create_topics"}
    fields = {field["name"]: field for field in apis["create_topics"]["request"]}
    assert fields["topics"]["required"]
    assert fields["timeout_ms"] == {
        "name": "timeout_ms",
        "type": "int32",
        "required": False,
        "default": 60000,
    }
    assert any(error["name"] == "TOPIC_ALREADY_EXISTS" for error in apis["create_topics"]["errors"])


async def test_metrics_count_requests_by_api_and_never_by_what_was_made_up(setup: Setup) -> None:
    setup.answers("metadata", METADATA)
    await setup.ask("POST", "/v1/metadata", packed({}))
    await setup.ask("POST", "/v1/evil", packed({}))
    await setup.ask("POST", "/v1/metadata", b"\xc1")
    text = content(await setup.ask("GET", "/metrics")).decode()
    assert 'kafka_network_RequestMetrics_RequestsPerSec_total{request="metadata"} 2.0' in text
    assert 'ErrorsPerSec_total{error="UNSUPPORTED_VERSION",request="unknown"} 1.0' in text
    assert 'ErrorsPerSec_total{error="INVALID_REQUEST",request="metadata"} 1.0' in text
    assert "evil" not in text


async def test_requests_are_logged_at_debug(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    setup.answers("metadata", METADATA)
    with caplog.at_level(logging.INFO, "kafkalite.request"):
        await setup.ask("POST", "/v1/metadata", packed({}), correlation_id="c-9")
        assert caplog.messages == []
    with caplog.at_level(logging.DEBUG, "kafkalite.request"):
        await setup.ask("POST", "/v1/metadata", packed({}), correlation_id="c-9")
    (line,) = caplog.messages
    assert "/v1/metadata -> 200" in line
    assert "c-9" in line


# --- Clients that leave ------------------------------------------------------------------------


class Slow:
    """A handler that waits until it is told to go on."""

    def __init__(self, response: Message | Exception) -> None:
        self.response = response
        self.began, self.may_end, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(self, request: Any, context: RequestContext) -> Message:
        self.began.set()
        await self.may_end.wait()
        self.ended.set()
        if isinstance(self.response, Exception):
            raise self.response
        return self.response

    async def lose_the_client(self, setup: Setup, path: str, body: bytes) -> None:
        asking = asyncio.ensure_future(setup.ask("POST", path, body))
        await self.began.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_a_change_of_state_is_carried_out_though_its_client_left(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow(ValueError("a bug"))
    setup.application.register("create_topics", slow.handle)
    await slow.lose_the_client(setup, "/v1/create_topics", packed({"topics": []}))
    assert not slow.ended.is_set()
    slow.may_end.set()
    await slow.ended.wait()
    await asyncio.sleep(0)
    assert "a change whose client had left failed" in caplog.text


async def test_a_wait_ends_with_its_client(setup: Setup) -> None:
    slow = Slow(FetchResponse(responses=[]))
    setup.application.register("fetch", slow.handle)
    body = msgspec.msgpack.encode(FetchRequest(max_wait_ms=0, min_bytes=0, topics=[]))
    await slow.lose_the_client(setup, "/v1/fetch", body)
    slow.may_end.set()
    await asyncio.sleep(0)
    assert not slow.ended.is_set()


async def test_closing_ends_what_goes_on_without_a_client(setup: Setup) -> None:
    slow = Slow(CreateTopicsResponse(topics=[]))
    setup.application.register("create_topics", slow.handle)
    await slow.lose_the_client(setup, "/v1/create_topics", packed({"topics": []}))
    await setup.application.close()
    slow.may_end.set()
    await asyncio.sleep(0)
    assert not slow.ended.is_set()


# --- Events ------------------------------------------------------------------------------------


async def events(setup: Setup, **query: str) -> dict[str, Any]:
    reply = await setup.ask("GET", "/v1/events", query={name: [value] for name, value in query.items()})
    assert reply.status == 200
    body = json.loads(content(reply))
    assert isinstance(body, dict)
    return body


async def test_events_are_read_page_by_page(setup: Setup) -> None:
    for number in range(5):
        setup.journal.record("IsrShrunk", partition=TopicPartition("t", number), isr=[1, 2])
    page = await events(setup, limit="2")
    assert page["events"][0] == {
        "id": "3-1700000000000-0",
        "time": 1_700_000_000_000,
        "broker": 3,
        "type": "IsrShrunk",
        "cause": None,
        "topic": "t",
        "partition": 0,
        "facts": {"isr": [1, 2]},
    }
    seen = [event["partition"] for event in page["events"]]
    while page["events"]:
        page = await events(setup, limit="2", after=page["next"])
        seen += [event["partition"] for event in page["events"]]
    assert seen == [0, 1, 2, 3, 4]
    assert page["next"] == "3-1700000000000-4"


async def test_events_can_be_chosen_by_type_and_an_empty_journal_has_no_next(setup: Setup) -> None:
    assert await events(setup) == {"events": [], "next": None}
    setup.journal.record("A")
    setup.journal.record("B")
    assert [event["type"] for event in (await events(setup, type="B"))["events"]] == ["B"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "10001"),
        ("limit", "-1"),
        ("limit", "many"),
        ("limit", "²"),
        ("after", "1-2-x"),
    ],
)
async def test_bad_parameters_of_events_are_named(setup: Setup, name: str, value: str) -> None:
    reply = await setup.ask("GET", "/v1/events", query={name: [value]})
    assert reply.status == 400
    assert refusal(reply)["field"] == name


async def test_a_parameter_given_twice_is_refused(setup: Setup) -> None:
    reply = await setup.ask("GET", "/v1/events", query={"type": ["A", "B"]})
    assert (reply.status, refusal(reply)["field"]) == (400, "type")


class Follower:
    """Reads a stream of events; can be told not to read on."""

    def __init__(self) -> None:
        self.text = ""
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.got_some = asyncio.Event()

    async def write(self, data: bytes) -> None:
        await self.may_read.wait()
        self.text += data.decode()
        self.got_some.set()

    async def until(self, condition: Callable[[str], bool]) -> None:
        while not condition(self.text):
            self.got_some.clear()
            await self.got_some.wait()

    def types(self) -> list[str]:
        lines = [line for line in self.text.splitlines() if line.startswith("data: ")]
        return [json.loads(line.removeprefix("data: "))["type"] for line in lines]


async def follow(
    setup: Setup, *, headers: Mapping[str, str] | None = None, **query: str
) -> Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]:
    reply = await setup.ask(
        "GET",
        "/v1/events",
        headers={"accept": "text/event-stream", **(headers or {})},
        query={name: [value] for name, value in query.items()},
    )
    assert reply.headers["Content-Type"] == "text/event-stream"
    assert reply.stream is not None
    return reply.stream


async def test_a_follower_gets_what_was_and_what_comes(setup: Setup) -> None:
    first = setup.journal.record("A")
    stream, follower = await follow(setup), Follower()
    task = asyncio.ensure_future(stream(follower.write))
    await follower.until(lambda text: "data" in text)
    second = setup.journal.record("B")
    await follower.until(lambda text: second in text)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert follower.types() == ["A", "B"]
    assert f"id: {first}\n" in follower.text
    setup.journal.record("C")  # Nobody is left to be woken.
    assert follower.types() == ["A", "B"]


async def test_a_follower_goes_on_where_it_was_and_sees_its_types_only(setup: Setup) -> None:
    ids = [setup.journal.record(type) for type in ("A", "B", "A", "B")]
    stream = await follow(setup, headers={"last-event-id": ids[1]}, after=ids[0], type="B")
    follower = Follower()
    task = asyncio.ensure_future(stream(follower.write))
    await follower.until(lambda text: ids[3] in text)
    task.cancel()
    await asyncio.wait([task])
    assert follower.types() == ["B"]


async def test_a_follower_that_falls_behind_the_ring_is_told_how_much_it_missed() -> None:
    setup = Setup(capacity=10)
    setup.journal.record("A")
    stream, follower = await follow(setup), Follower()
    task = asyncio.ensure_future(stream(follower.write))
    await follower.until(lambda text: "data" in text)
    follower.may_read.clear()
    last = [setup.journal.record("B") for _ in range(25)][-1]
    follower.may_read.set()
    await follower.until(lambda text: last in text)
    task.cancel()
    await asyncio.wait([task])
    assert follower.types() == ["A"] + ["B"] * 10
    assert ": 15 events were missed" in follower.text
