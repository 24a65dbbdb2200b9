"""HTTP as a client on a plain socket sees it."""

import asyncio
import gzip
import json
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from kafkalite.edge import Buffer, HttpReply, HttpRequest
from kafkalite.server.connection import JOIN_BELOW_BYTES
from kafkalite.server.http import HttpNetwork
from tests.support import raw_http
from tests.support.raw_http import RawClient, post

LIMIT = 100_000


serving = partial(raw_http.serving, max_body_bytes=LIMIT)


def announcing(size: int, extra: str) -> bytes:
    return f"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n{extra}\r\n".encode()


async def echo(request: HttpRequest) -> HttpReply:
    return HttpReply(200, (request.body,), {"Content-Type": "application/msgpack"})


async def test_a_request_reaches_the_handler_as_it_was_sent() -> None:
    seen: list[HttpRequest] = []

    async def handler(request: HttpRequest) -> HttpReply:
        seen.append(request)
        return HttpReply(200, (b"ok",), {"X-Answer": "yes"})

    async with serving(handler) as listening:
        connection = await RawClient.to(listening)
        await connection.send(
            post(b"body", path="/v1/a%20b?topic=a&topic=b&empty=", extra="X-Client-Id: Me\r\n")
        )
        status, headers, body = await connection.answer()
    assert (status, headers["x-answer"], headers["server"], body) == (200, "yes", "kafkalite", b"ok")
    (request,) = seen
    assert (request.method, request.path, request.listener) == ("POST", "/v1/a b", "INTERNAL")
    assert request.query == {"topic": ["a", "b"], "empty": [""]}
    assert request.headers["x-client-id"] == "Me"
    assert bytes(request.body) == b"body"
    assert request.peer.startswith("127.0.0.1:")


@pytest.mark.parametrize("size", [0, 1, 4096, LIMIT])
async def test_bodies_of_all_sizes_come_back_whole(size: int) -> None:
    body = bytes(i % 251 for i in range(size))
    async with serving(echo) as listening:
        connection = await RawClient.to(listening)
        await connection.send(post(body))
        assert (await connection.answer())[2] == body


async def test_a_body_that_comes_in_pieces_and_chunks_is_put_together() -> None:
    async with serving(echo) as listening:
        connection = await RawClient.to(listening)
        await connection.send(
            b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        await connection.send(b"2\r\nde\r\n0\r\n\r\n")
        assert (await connection.answer())[2] == b"abcde"


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving(echo) as listening:
        connection = await RawClient.to(listening)
        await connection.send(b"".join(post(b"%d" % number) for number in range(50)))
        assert [(await connection.answer())[2] for _ in range(50)] == [b"%d" % number for number in range(50)]


async def test_a_reply_of_large_and_small_buffers_arrives_in_order() -> None:
    large = b"L" * (JOIN_BELOW_BYTES + 1)
    pieces: list[Buffer] = [b"a", memoryview(large), bytearray(b"b"), memoryview(b"c"), large, b"", b"d"]

    async def handler(request: HttpRequest) -> HttpReply:
        return HttpReply(200, pieces)

    async with serving(handler) as listening:
        connection = await RawClient.to(listening)
        for _ in range(2):  # The second one shows that the length of the first was right.
            await connection.send(post(b""))
            assert (await connection.answer())[2] == b"a" + large + b"bc" + large + b"d"


async def test_an_announced_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    async with serving(echo) as listening:
        connection = await RawClient.to(listening)
        await connection.send(announcing(LIMIT + 1, "X-Correlation-Id: c7\r\n"))
        status, headers, body = await connection.answer()
    assert status == 413
    assert headers["x-correlation-id"] == "c7"
    refusal = json.loads(body)
    assert (refusal["error_code"], refusal["error"], refusal["field"]) == (42, "INVALID_REQUEST", None)
    assert str(LIMIT) in refusal["message"]


async def test_a_chunked_body_over_the_limit_is_refused_as_soon_as_it_is() -> None:
    async with serving(echo) as listening:
        connection = await RawClient.to(listening)
        await connection.send(b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        await connection.send(f"{LIMIT + 1:x}\r\n".encode() + b"x" * (LIMIT + 1))  # The end never comes.
        assert (await connection.refusal())[0] == 413


async def test_who_waits_for_permission_to_send_gets_it_or_the_refusal() -> None:
    async with serving(echo) as listening:
        connection = await RawClient.to(listening)
        await connection.send(
            b"POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await connection.send(b"hi")
        assert (await connection.answer())[2] == b"hi"
        await connection.send(announcing(LIMIT + 1, "Expect: 100-continue\r\n"))
        assert (await connection.refusal())[0] == 413


async def test_a_body_that_stops_halfway_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    half = post(b"x" * 1000)[:-500]
    with caplog.at_level(logging.WARNING):
        async with serving(echo) as listening:
            gone = await RawClient.to(listening)
            await gone.send(half)
            gone.writer.close()
            await gone.writer.wait_closed()
            other = await RawClient.to(listening)
            await other.send(post(b"served"))
            assert (await other.answer())[2] == b"served"
    assert caplog.records == []


async def test_a_body_that_stalls_is_given_up() -> None:
    async with serving(echo, body_timeout_ms=1) as listening:
        connection = await RawClient.to(listening)
        await connection.send(post(b"x" * 1000)[:-500])
        assert (await connection.refusal())[0] == 408


async def test_a_compressed_body_is_not_inflated() -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    assert len(bomb) < LIMIT
    async with serving(echo) as listening:
        connection = await RawClient.to(listening)
        await connection.send(post(bomb, extra="Content-Encoding: gzip\r\n"))
        assert (await connection.answer())[2] == bomb


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: nine\r\n\r\n", b"GET\r\n\r\n"],
)
async def test_what_is_not_http_is_refused_in_the_protocols_words(garbage: bytes) -> None:
    async with serving(echo) as listening:
        connection = await RawClient.to(listening)
        await connection.send(garbage)
        status, refusal = await connection.refusal()
    assert status == 400
    assert refusal["error"] == "INVALID_REQUEST"
    assert refusal["message"]
    assert "\n" not in refusal["message"]


async def test_a_handler_that_fails_answers_500_with_a_type_and_no_trace() -> None:
    async def handler(request: HttpRequest) -> HttpReply:
        raise LookupError("a secret")

    async with serving(handler) as listening:
        connection = await RawClient.to(listening)
        await connection.send(post(b""))
        status, refusal = await connection.refusal()
    assert (status, refusal["error_code"], refusal["message"]) == (500, -1, "LookupError")


async def test_a_handler_is_cancelled_when_its_connection_is_lost() -> None:
    waiting, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: HttpRequest) -> HttpReply:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with serving(handler) as listening:
        connection = await RawClient.to(listening)
        await connection.send(post(b"x"))
        await waiting.wait()
        connection.writer.close()
        await cancelled.wait()


async def test_closing_cancels_handlers_and_frees_the_port() -> None:
    waiting, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: HttpRequest) -> HttpReply:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with serving(handler) as listening:
        busy, idle = await RawClient.to(listening), await RawClient.to(listening)
        await busy.send(post(b"x"))
        await waiting.wait()
        await listening.close()
        assert cancelled.is_set()
        assert await busy.reader.read() == b""
        assert await idle.reader.read() == b""
        again = await HttpNetwork().listen(
            "127.0.0.1", listening.port, listener="A", handler=echo, max_body_bytes=LIMIT
        )
        await again.close()


async def test_a_port_in_use_is_an_oserror() -> None:
    async with serving(echo) as listening:
        with pytest.raises(OSError, match="in use"):
            await HttpNetwork().listen(
                "127.0.0.1", listening.port, listener="A", handler=echo, max_body_bytes=LIMIT
            )


async def test_a_stream_flows_until_the_client_leaves() -> None:
    ended = asyncio.Event()

    async def stream(write: Callable[[bytes], Awaitable[None]]) -> None:
        try:
            await write(b"first\n\n")
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def handler(request: HttpRequest) -> HttpReply:
        return HttpReply(200, (), {"Content-Type": "text/event-stream"}, stream)

    async with serving(handler) as listening:
        connection = await RawClient.to(listening)
        await connection.send(b"GET /e HTTP/1.1\r\nHost: h\r\n\r\n")
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert b"Content-Type: text/event-stream" in head
        assert b"first\n\n" in await connection.reader.readuntil(b"\n\n\r\n")
        connection.writer.close()
        await ended.wait()
