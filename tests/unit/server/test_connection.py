"""The data path's connection, and its hand-over to the complete server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from kafkalite.edge import Handler, HttpReply, HttpRequest
from kafkalite.server import connection as connection_module
from kafkalite.server.connection import JOIN_BELOW_BYTES, LINGER_S, Connection, Service
from tests.simulation.loop import run_virtual
from tests.support import raw_http
from tests.support.raw_http import RawClient, post

LIMIT = 20_000_000


serving = partial(raw_http.serving, max_body_bytes=LIMIT)


GET = b"GET /v1/metadata HTTP/1.1\r\nHost: h\r\n\r\n"


async def echo(request: HttpRequest) -> HttpReply:
    return HttpReply(200, (request.method.encode(), b" ", request.body), {"Content-Type": "a/b"})


async def test_bodies_larger_than_the_first_buffer_come_back_whole() -> None:
    body = bytes(range(251)) * 40_000
    async with serving(echo) as listening:
        client = await RawClient.to(listening)
        for _ in range(2):
            await client.send(post(body))
            assert (await client.answer())[2] == b"POST " + body


async def test_correlation_ids_differ_while_heads_are_the_same() -> None:
    async def handler(request: HttpRequest) -> HttpReply:
        return HttpReply(200, (request.body,), {"Content-Type": "a/b"}, correlation_id=request.correlation_id)

    async with serving(handler) as listening:
        client = await RawClient.to(listening)
        await client.send(
            b"".join(post(b"%d" % n, extra=f"X-Correlation-Id: {n * 10}\r\n") for n in range(5))
        )
        for n in range(5):
            _, headers, body = await client.answer()
            assert (body, headers["x-correlation-id"]) == (b"%d" % n, f"{n * 10}")


async def test_a_correlation_id_in_words_is_echoed_by_either_server() -> None:
    async def handler(request: HttpRequest) -> HttpReply:
        assert "x-correlation-id" not in request.headers
        return HttpReply(200, (request.body,), correlation_id=request.correlation_id)

    async with serving(handler) as listening:
        client = await RawClient.to(listening)
        for extra in ("", "", "TE: trailers\r\n"):  # The last one is not plain.
            for words in ("order-7", "order-8"):
                await client.send(post(b"x", extra=f"{extra}X-Correlation-Id: {words}\r\n"))
                assert (await client.answer())[1]["x-correlation-id"] == words


async def test_a_request_that_is_not_plain_goes_to_the_complete_server_in_its_turn() -> None:
    """All on one connection, sent at once, and the earlier ones are still being served by then."""
    async with serving(echo) as listening:
        client = await RawClient.to(listening)
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
        client = await RawClient.to(listening)
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
        client = await RawClient.to(listening)
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
        client = await RawClient.to(listening)
        await client.send(b"POST /x HTTP/1.1\nHost: h\nContent-Length: 0\n\n")
        assert (await client.answer())[0] == 400
    assert seen == []


async def test_a_refusal_is_seen_although_more_is_being_sent() -> None:
    async def handler(request: HttpRequest) -> HttpReply:
        raise LookupError

    async with serving(handler) as listening:
        client = await RawClient.to(listening)
        sending = asyncio.create_task(client.send(post(b"x" * 1000) + post(b"y" * 1_000_000) * 10))
        assert (await client.answer())[0] == 500
        assert await client.reader.read() == b""
        await sending


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
        client = await RawClient.to(listening)
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
        client = await RawClient.to(listening)
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
        client = await RawClient.to(listening)
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
        client = await RawClient.to(listening)
        await client.send(post(b""))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.answer()


@pytest.mark.parametrize(
    "reply",
    [HttpReply(200, (), {"X-A": "b\r\nX-C: d"}), HttpReply(200, correlation_id="b\r\nX-C: d")],
    ids=["header", "correlation id"],
)
async def test_a_header_with_a_line_break_is_a_fault_of_the_handler(reply: HttpReply) -> None:
    async def handler(request: HttpRequest) -> HttpReply:
        return reply

    async with serving(handler) as listening:
        client = await RawClient.to(listening)
        await client.send(post(b""))
        status, headers, _ = await client.answer()
    assert status == 500
    assert "x-c" not in headers


# ---- time, which is virtual here


class Wire(asyncio.Transport):
    """A connection without a socket: what was written on it, and when it was closed."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self.written = b""
        self.closed_at: float | None = None
        connection.connection_made(self)

    def receive(self, data: bytes) -> None:
        """Bytes come in."""
        while data and self.closed_at is None:
            room = self._connection.get_buffer(-1)
            count = min(len(room), len(data))
            room[:count] = data[:count]
            self._connection.buffer_updated(count)
            data = data[count:]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.written += b"EOF"

    def close(self) -> None:
        if self.closed_at is None:
            self.closed_at = asyncio.get_running_loop().time()
            self._connection.connection_lost(None)

    abort = close

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def wired(handler: Handler) -> Wire:
    service = Service(
        "INTERNAL",
        handler,
        max_body_bytes=LIMIT,
        body_timeout_s=30,
        idle_s=600,
        complete=asyncio.Protocol,
    )
    return Wire(service.connect())


def test_a_head_that_drips_is_given_up_and_its_sender_dropped() -> None:
    async def main() -> None:
        wire = wired(echo)
        for byte in post(b"")[:-1]:
            wire.receive(bytes((byte,)))
            await asyncio.sleep(1)
        assert wire.closed_at == 30 + LINGER_S
        assert b" 408 " in wire.written
        assert wire.written.endswith(b"EOF")

    run_virtual(main())


def test_a_body_may_take_long_while_it_moves() -> None:
    async def main() -> None:
        wire = wired(echo)
        wire.receive(post(b"x" * 10)[:-10])
        for _ in range(10):
            await asyncio.sleep(29)
            wire.receive(b"x")
        await asyncio.sleep(0)
        assert wire.written.endswith(b"POST " + b"x" * 10)
        assert wire.closed_at is None

    run_virtual(main())


def test_a_body_that_stops_is_given_up_whenever_it_stops() -> None:
    async def main() -> None:
        wire = wired(echo)
        for _ in range(3):  # A timer of an earlier message must not be the one of a later one.
            await asyncio.sleep(20)
            wire.receive(post(b"good"))
        await asyncio.sleep(20)
        wire.receive(post(b"x" * 10)[:-5])
        await asyncio.sleep(100)
        assert wire.closed_at == 80 + 30 + LINGER_S
        assert b" 408 " in wire.written

    run_virtual(main())


def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    async def slow(request: HttpRequest) -> HttpReply:
        await asyncio.sleep(2000)
        return HttpReply(200)

    async def main() -> None:
        idle, busy = wired(slow), wired(slow)
        busy.receive(post(b""))
        await asyncio.sleep(1999)
        assert (idle.closed_at, busy.closed_at) == (600, None)
        await asyncio.sleep(700)
        assert b" 200 " in busy.written
        assert busy.closed_at == 2600

    run_virtual(main())


def test_a_body_that_waits_for_the_handler_is_not_its_sender_to_blame() -> None:
    """The next request stalls while one is served: its time begins when it is waited for."""

    async def slow(request: HttpRequest) -> HttpReply:
        await asyncio.sleep(100)
        return HttpReply(200)

    async def main() -> None:
        wire = wired(slow)
        wire.receive(post(b"first") + post(b"second")[:-3])
        await asyncio.sleep(129)
        assert wire.closed_at is None
        wire.receive(b"ond")
        await asyncio.sleep(101)
        assert wire.written.count(b" 200 ") == 2

    run_virtual(main())
