"""The data path's connection, and its hand-over to the complete server."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from kafkalite.edge import Handler, HttpReply, HttpRequest
from kafkalite.server import connection as connection_module
from kafkalite.server.connection import JOIN_BELOW_BYTES
from kafkalite.server.http import HttpListening, HttpNetwork

LIMIT = 20_000_000


@asynccontextmanager
async def serving(
    handler: Handler, *, body_timeout_ms: int = 30_000, idle_ms: int = 600_000
) -> AsyncIterator[HttpListening]:
    network = HttpNetwork(body_timeout_ms=body_timeout_ms, idle_ms=idle_ms)
    listening = await network.listen(
        "127.0.0.1", 0, listener="INTERNAL", handler=handler, max_body_bytes=LIMIT
    )
    try:
        yield listening
    finally:
        await listening.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, listening: HttpListening) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", listening.port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split()[1]), headers, body


def post(body: bytes, *, extra: str = "") -> bytes:
    head = f"POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


GET = b"GET /v1/metadata HTTP/1.1\r\nHost: h\r\n\r\n"


async def echo(request: HttpRequest) -> HttpReply:
    return HttpReply(200, (request.method.encode(), b" ", request.body), {"Content-Type": "a/b"})


async def test_bodies_larger_than_the_first_buffer_come_back_whole() -> None:
    body = bytes(range(251)) * 40_000
    async with serving(echo) as listening:
        client = await Client.to(listening)
        for _ in range(2):
            await client.send(post(body))
            assert (await client.answer())[2] == b"POST " + body


async def test_correlation_ids_differ_while_heads_are_the_same() -> None:
    async def handler(request: HttpRequest) -> HttpReply:
        number = request.headers["x-correlation-id"]
        return HttpReply(200, (request.body,), {"Content-Type": "a/b", "X-Correlation-Id": number})

    async with serving(handler) as listening:
        client = await Client.to(listening)
        await client.send(
            b"".join(post(b"%d" % n, extra=f"X-Correlation-Id: {n * 10}\r\n") for n in range(5))
        )
        for n in range(5):
            _, headers, body = await client.answer()
            assert (body, headers["x-correlation-id"]) == (b"%d" % n, f"{n * 10}")


async def test_a_request_that_is_not_plain_goes_to_the_complete_server_in_its_turn() -> None:
    """All on one connection, sent at once, and the earlier ones are still being served by then."""
    async with serving(echo) as listening:
        client = await Client.to(listening)
        chunked = b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        await client.send(post(b"1") + post(b"2") + GET + chunked + post(b"3"))
        answers = [(await client.answer())[2] for _ in range(5)]
    assert answers == [b"POST 1", b"POST 2", b"GET ", b"POST abc", b"POST 3"]


async def test_a_hand_over_waits_for_the_handler_that_runs() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handler(request: HttpRequest) -> HttpReply:
        if request.method == "POST":
            entered.set()
            await leave.wait()
        return HttpReply(200, (request.method.encode(),))

    async with serving(handler) as listening:
        client = await Client.to(listening)
        await client.send(post(b"slow"))
        await entered.wait()
        await client.send(GET)
        await client.send(GET)
        leave.set()
        assert [(await client.answer())[2] for _ in range(3)] == [b"POST", b"GET", b"GET"]


@pytest.mark.parametrize(
    "smuggled",
    [
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nContent-Length: 9\r\n\r\nabcdGET /",
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\ncontent-length: 9\r\n\r\nabcdGET /",
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4,9\r\n\r\nabcd",
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: +4\r\n\r\nabcd",
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0x4\r\n\r\nabcd",
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length : 4\r\n\r\nabcd",
        b"POST /x HTTP/1.1\r\nHost: h\r\n Content-Length: 4\r\n\r\nabcd",
        b"POST /x HTTP/1.1\r\nHost: h\r\nX: 1\r\n\tContent-Length: 4\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: h\r\nX: a\rContent-Length: 4\r\n\r\nabcd",
        b"POST /x HTTP/1.1\r\nHost: h\r\nX: \x00\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /x HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 20_000 + b"\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /x HTTP/1.1\r\nHost: h\r\n" + b"X: 1\r\n" * 200 + b"Content-Length: 4\r\n\r\nabcd",
        b"POST /x HTTP/1.1 x\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd",
    ],
)
@pytest.mark.parametrize("before", [b"", post(b"good")], ids=["first", "after a good one"])
async def test_what_two_readers_could_read_in_two_ways_is_refused(smuggled: bytes, before: bytes) -> None:
    seen: list[bytes] = []

    async def handler(request: HttpRequest) -> HttpReply:
        seen.append(bytes(request.body))
        return HttpReply(200)

    async with serving(handler) as listening:
        client = await Client.to(listening)
        await client.send(before + smuggled)
        if before:
            assert (await client.answer())[0] == 200
        status, headers, body = await client.answer()
        assert (status, headers.get("connection", "close")) == (400, "close")
        assert json.loads(body)["error"] == "INVALID_REQUEST"
        assert await client.reader.read() == b"", "nothing behind it is served"
    assert seen == ([b"good"] if before else [])


async def test_lines_that_end_in_lf_alone_never_reach_a_handler() -> None:
    seen: list[HttpRequest] = []

    async def handler(request: HttpRequest) -> HttpReply:
        seen.append(request)
        return HttpReply(200)

    async with serving(handler) as listening:
        client = await Client.to(listening)
        await client.send(b"POST /x HTTP/1.1\nHost: h\nContent-Length: 0\n\n")
        assert (await client.answer())[0] == 400
    assert seen == []


async def test_a_head_that_drips_is_given_up() -> None:
    async with serving(echo, body_timeout_ms=50) as listening:
        client = await Client.to(listening)
        status: asyncio.Task[tuple[int, dict[str, str], bytes]] = asyncio.create_task(client.answer())
        for byte in post(b""):
            if status.done():
                break
            client.writer.write(bytes((byte,)))
            await asyncio.sleep(0.01)
        assert (await status)[0] == 408
        assert await client.reader.read() == b""


async def test_a_body_may_take_long_while_it_moves() -> None:
    async with serving(echo, body_timeout_ms=200) as listening:
        client = await Client.to(listening)
        for byte in post(b"abcdefgh")[-9:]:
            if byte == ord("\n"):
                await client.send(post(b"abcdefgh")[:-8])
                continue
            await client.send(bytes((byte,)))
            await asyncio.sleep(0.05)
        assert (await client.answer())[2] == b"POST abcdefgh"


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    leave = asyncio.Event()

    async def handler(request: HttpRequest) -> HttpReply:
        await leave.wait()
        return HttpReply(200)

    async with serving(handler, idle_ms=50) as listening:
        idle, busy = await Client.to(listening), await Client.to(listening)
        await busy.send(post(b""))
        assert await idle.reader.read() == b""
        leave.set()
        assert (await busy.answer())[0] == 200
        assert await busy.reader.read() == b""


async def test_what_is_read_ahead_of_the_handler_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "READ_AHEAD_BYTES", 100_000)
    entered, leave = asyncio.Event(), asyncio.Event()
    served: list[int] = []

    async def handler(request: HttpRequest) -> HttpReply:
        entered.set()
        await leave.wait()
        served.append(len(request.body))
        return HttpReply(200)

    body = b"x" * 90_000
    async with serving(handler) as listening:
        client = await Client.to(listening)
        sending = asyncio.create_task(client.send(post(body) * 200))
        await entered.wait()
        (one,) = listening._service.connections
        while not one._is_reading_paused:
            await asyncio.sleep(0)
        assert len(one._waiting) <= 3
        leave.set()
        await sending
        for _ in range(200):
            assert (await client.answer())[0] == 200
    assert served == [len(body)] * 200


async def test_a_client_that_does_not_read_holds_back_its_next_request() -> None:
    served = 0

    async def handler(request: HttpRequest) -> HttpReply:
        nonlocal served
        served += 1
        return HttpReply(200, (b"x" * 8_000_000,))

    async with serving(handler) as listening:
        client = await Client.to(listening)
        await client.send(post(b"") * 10)
        (one,) = listening._service.connections
        while one._writable is None:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert served < 10
        for _ in range(10):
            assert len((await client.answer())[2]) == 8_000_000
    assert served == 10


async def test_a_stream_answers_a_plain_request_too() -> None:
    async def stream(write: Callable[[bytes], Awaitable[None]]) -> None:
        await write(b"first")
        await write(b"")
        await write(b"x" * (JOIN_BELOW_BYTES + 1))

    async def handler(request: HttpRequest) -> HttpReply:
        return HttpReply(200, (), {"Content-Type": "text/event-stream"}, stream)

    async with serving(handler) as listening:
        client = await Client.to(listening)
        await client.send(post(b"") * 2)
        for _ in range(2):
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"\r\nTransfer-Encoding: chunked\r\n" in head
            chunks = []
            while size := int(await client.reader.readuntil(b"\r\n"), 16):
                chunks.append(await client.reader.readexactly(size))
                assert await client.reader.readexactly(2) == b"\r\n"
            assert await client.reader.readexactly(2) == b"\r\n"
            assert b"".join(chunks) == b"first" + b"x" * (JOIN_BELOW_BYTES + 1)


async def test_a_handler_cancelled_from_within_ends_its_connection() -> None:
    async def handler(request: HttpRequest) -> HttpReply:
        raise asyncio.CancelledError

    async with serving(handler) as listening:
        client = await Client.to(listening)
        await client.send(post(b""))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.answer()


async def test_a_header_with_a_line_break_is_a_fault_of_the_handler() -> None:
    async def handler(request: HttpRequest) -> HttpReply:
        return HttpReply(200, (), {"X-A": "b\r\nX-C: d"})

    async with serving(handler) as listening:
        client = await Client.to(listening)
        await client.send(post(b""))
        status, headers, _ = await client.answer()
    assert status == 500
    assert "x-c" not in headers
