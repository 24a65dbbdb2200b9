"""Typed calls over a transport that answers what it is told to."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from kafkalite.common import Address
from kafkalite.edge import Buffer, ConnectionFailed, HttpReply
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from kafkalite.protocol.metadata import MetadataRequest, MetadataResponse
from kafkalite.transport.rpc import RequestRefused, UnreadableAnswer, ask

ADDRESS = Address("broker-1", 9092)
pack = msgspec.msgpack.encode


class Scripted:
    """An edge.Transport that keeps what was asked and answers with ``reply``."""

    def __init__(self, reply: HttpReply | Exception) -> None:
        self._reply = reply
        self.asked: dict[str, Any] = {}

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
        self.asked = {
            "to": address,
            "line": f"{method} {target}",
            "headers": dict(headers),
            "body": b"".join(body),
            "lane": lane,
            "timeout_ms": timeout_ms,
        }
        if isinstance(self._reply, Exception):
            raise self._reply
        return self._reply

    async def disconnect(self) -> None:
        pass

    async def close(self) -> None:
        pass


async def test_a_request_goes_to_its_api_and_the_answer_has_its_type() -> None:
    answer = MetadataResponse(brokers=[], topics=[], cluster_id="c")
    transport = Scripted(HttpReply(200, [pack(answer)]))
    got = await ask(
        *(transport, ADDRESS, MetadataRequest(topics=None)),
        lane="control",
        timeout_ms=7,
        client_id="me",
        correlation_id="42",
        cause="1-2-3",
    )
    assert got == answer
    assert transport.asked == {
        "to": ADDRESS,
        "line": "POST /v1/metadata",
        "headers": {
            "Content-Type": "application/msgpack",
            "Accept": "application/msgpack",
            "X-Client-Id": "me",
            "X-Correlation-Id": "42",
            "X-Cause-Id": "1-2-3",
        },
        "body": pack(MetadataRequest(topics=None)),
        "lane": "control",
        "timeout_ms": 7,
    }


async def test_headers_that_say_nothing_are_left_out() -> None:
    answer = InitProducerIdResponse(throttle_time_ms=0, error_code=0, producer_id=5, producer_epoch=0)
    transport = Scripted(HttpReply(200, [pack(answer)]))
    request = InitProducerIdRequest(transaction_timeout_ms=1)
    assert (await ask(transport, ADDRESS, request, lane="l", timeout_ms=1, cause=None)).producer_id == 5
    assert set(transport.asked["headers"]) == {"Content-Type", "Accept"}


REFUSAL = {"error_code": 42, "error": "INVALID_REQUEST", "field": "topics[0].name", "message": "is missing"}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (pack(REFUSAL), "application/msgpack"),
        (json.dumps(REFUSAL).encode(), "application/json; charset=utf-8"),
    ],
)
async def test_a_refusal_carries_what_the_server_says(body: bytes, content_type: str) -> None:
    transport = Scripted(HttpReply(400, [body], {"content-type": content_type}))
    with pytest.raises(RequestRefused) as caught:
        await ask(transport, ADDRESS, MetadataRequest(), lane="l", timeout_ms=1)
    refused = caught.value
    assert (refused.status, refused.error_code, refused.error) == (400, 42, "INVALID_REQUEST")
    assert (refused.field, refused.message) == ("topics[0].name", "is missing")
    assert str(refused) == "broker-1:9092 answered 400 INVALID_REQUEST: is missing (field topics[0].name)"


@pytest.mark.parametrize("body", [[b"<h1>Bad Gateway</h1>"], [], [b"\xff\xfe"]])
async def test_a_refusal_in_another_form_is_still_one(body: list[bytes]) -> None:
    transport = Scripted(HttpReply(502, body, {"content-type": "text/html"}))
    with pytest.raises(RequestRefused) as caught:
        await ask(transport, ADDRESS, MetadataRequest(), lane="l", timeout_ms=1)
    assert (caught.value.status, caught.value.error_code) == (502, ErrorCode.UNKNOWN_SERVER_ERROR)
    assert caught.value.message


@pytest.mark.parametrize("body", [b"", b"<html>", pack({"brokers": 1})])
async def test_an_answer_that_is_not_the_message_is_unreadable(body: bytes) -> None:
    transport = Scripted(HttpReply(200, [body]))
    with pytest.raises(UnreadableAnswer, match="broker-1:9092 gave an answer to metadata"):
        await ask(transport, ADDRESS, MetadataRequest(), lane="l", timeout_ms=1)


async def test_a_failed_connection_passes_through() -> None:
    lost = ConnectionFailed(ADDRESS, "connection refused", sent=False)
    with pytest.raises(ConnectionFailed) as caught:
        await ask(Scripted(lost), ADDRESS, MetadataRequest(), lane="l", timeout_ms=1)
    assert caught.value is lost
