"""The HTTP transport against servers that behave, and servers that do not.

Most servers here are scripts: they read so many requests, write exact bytes, and hang up or
wait, so that every failure happens at a known byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from kafkalite.common import Address
from kafkalite.edge import ConnectionFailed, HttpReply
from kafkalite.transport.http import HttpTransport

Script = Callable[["Peer"], Awaitable[None]]
LONG_MS = 30_000


class Peer:
    """The server's side of one connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        """How many connections came before this one."""
        self.reader = reader
        self.writer = writer

    async def request(self) -> tuple[str, dict[str, str], bytes]:
        """Read one request: its first line, its headers, its body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return first, headers, await self.reader.readexactly(int(headers["Content-Length"]))

    async def answer(self, body: bytes = b"", *, status: str = "200 OK", extra: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode()
        await self.write(head + body)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hung_up(self) -> None:
        """Wait until the other side has closed."""
        with contextlib.suppress(ConnectionResetError):
            while await self.reader.read(65536):
                pass


class Server:
    """Runs a script on every connection."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.peers: list[Peer] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(len(self.peers), reader, writer)
        self.peers.append(peer)
        try:
            await self._script(peer)
        except (asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError):
            pass  # The transport hung up: the test looks at what it made of that.
        finally:
            writer.close()

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Address]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield Address(*server.sockets[0].getsockname()[:2])
        finally:
            server.close()


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    transport = HttpTransport()
    yield transport
    await transport.close()


def asking(transport: HttpTransport, address: Address) -> Callable[..., Awaitable[HttpReply]]:
    async def ask(
        target: str = "/", *body: bytes, lane: str = "test", timeout_ms: int = LONG_MS
    ) -> HttpReply:
        return await transport.ask(
            address, "POST", target, headers={"X-A": "1"}, body=body, lane=lane, timeout_ms=timeout_ms
        )

    return ask


@contextlib.contextmanager
def fails(words: str, *, sent: bool = True) -> Iterator[None]:
    with pytest.raises(ConnectionFailed) as caught:
        yield
    assert words in caught.value.reason
    assert caught.value.sent is sent
    assert str(caught.value) == f"{caught.value.address}: {caught.value.reason}"


async def echo(peer: Peer) -> None:
    while True:
        first, _, body = await peer.request()
        await peer.answer(first.encode() + b"|" + body)


async def test_a_request_has_a_host_a_length_and_its_pieces_in_order(transport: HttpTransport) -> None:
    seen = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        seen.set_result(await peer.request())
        await peer.answer(b"ok", status="202 Accepted", extra="X-Reply: Yes\r\n")

    async with Server(script).run() as address:
        reply = await transport.ask(
            *(address, "POST", "/v1/produce"),
            headers={"X-Client-Id": "ümlaut"},
            body=[b"ab", bytearray(b"cd"), memoryview(b"ef")],
            lane="produce",
            timeout_ms=LONG_MS,
        )
        first, headers, body = await seen
        assert first == "POST /v1/produce HTTP/1.1"
        assert headers == {"Host": str(address), "Content-Length": "6", "X-Client-Id": "ümlaut"}
        assert body == b"abcdef"
        assert (reply.status, reply.headers["x-reply"]) == (202, "Yes")
        assert b"".join(reply.body) == b"ok"


async def test_requests_are_pipelined_and_answered_in_order(transport: HttpTransport) -> None:
    async def script(peer: Peer) -> None:
        requests = [await peer.request() for _ in range(3)]  # All three before the first answer.
        for first, _, _ in requests:
            await peer.answer(first.encode())

    server = Server(script)
    async with server.run() as address:
        ask = asking(transport, address)
        replies = await asyncio.gather(ask("/1"), ask("/2", b"x"), ask("/3"))
        assert [b"".join(r.body) for r in replies] == [f"POST /{n} HTTP/1.1".encode() for n in (1, 2, 3)]
        assert len(server.peers) == 1


async def test_each_lane_has_a_connection_of_its_own(transport: HttpTransport) -> None:
    free = asyncio.Event()

    async def script(peer: Peer) -> None:
        first, _, _ = await peer.request()
        if "slow" in first:
            await free.wait()
        await peer.answer(first.encode())

    async with Server(script).run() as address:
        ask = asking(transport, address)
        slow = asyncio.ensure_future(ask("/slow", lane="fetch"))
        assert (await ask("/fast", lane="produce")).status == 200
        assert not slow.done()
        free.set()
        assert (await slow).status == 200


async def test_answers_may_come_in_any_pieces(transport: HttpTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.request()
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        data += b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nfg"
        for position in range(len(data)):
            await peer.write(data[position : position + 1])
            await asyncio.sleep(0)

    async with Server(script).run() as address:
        ask = asking(transport, address)
        one, two = await asyncio.gather(ask(), ask())
        assert b"".join(one.body) == b"abcde"
        assert b"".join(two.body) == b"fg"


async def test_large_bodies_go_both_ways(transport: HttpTransport) -> None:
    body = bytes(range(256)) * 40_000

    async def slow_reader(peer: Peer) -> None:
        for _ in range(5):
            _, _, got = await peer.request()
            await peer.answer(got)

    async with Server(slow_reader).run() as address:
        ask = asking(transport, address)
        replies = await asyncio.gather(*(ask("/", body) for _ in range(5)))
        assert all(b"".join(reply.body) == body for reply in replies)


async def test_a_full_write_buffer_holds_requests_back_in_order(transport: HttpTransport) -> None:
    begun, read_on = asyncio.Event(), asyncio.Event()
    order: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        begun.set()  # The rest of the first request is more than the sockets' buffers hold.
        await read_on.wait()
        await peer.reader.readexactly(len(big))
        await peer.answer()
        for _ in range(3):
            first, _, _ = await peer.request()
            order.append(first.split()[1])
            await peer.answer()

    big = bytes(32 << 20)
    async with Server(script).run() as address:
        ask = asking(transport, address)
        tasks = [asyncio.ensure_future(ask("/0", big))]
        await begun.wait()
        tasks += [asyncio.ensure_future(ask(f"/{n}")) for n in (1, 2, 3)]
        with fails("before it was sent", sent=False):
            await ask("/never", timeout_ms=10)
        read_on.set()
        await asyncio.gather(*tasks)
        assert order == ["/1", "/2", "/3"]


async def test_what_was_held_back_goes_to_the_next_connection(transport: HttpTransport) -> None:
    begun, hang_up = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.reader.readuntil(b"\r\n\r\n")
            begun.set()
            await hang_up.wait()
        else:
            await echo(peer)

    async with Server(script).run() as address:
        ask = asking(transport, address)
        lost = asyncio.ensure_future(ask("/lost", bytes(32 << 20)))
        await begun.wait()
        held = asyncio.ensure_future(ask("/held"))
        await asyncio.sleep(0)
        hang_up.set()
        with fails("connection"):
            await lost
        assert (await held).status == 200


async def test_nobody_listens(transport: HttpTransport) -> None:
    async with Server(echo).run() as address:
        pass
    with fails("connection refused", sent=False):
        await asking(transport, address)()


async def test_a_name_that_leads_nowhere(transport: HttpTransport) -> None:
    with fails("host name not found", sent=False):
        await asking(transport, Address("no-such-host.invalid", 1))()


async def test_the_server_closes_without_an_answer(transport: HttpTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    async with Server(script).run() as address:
        ask = asking(transport, address)
        results = await asyncio.gather(ask("/1"), ask("/2"), return_exceptions=True)
        assert [type(result) for result in results] == [ConnectionFailed] * 2
        assert "clos" in str(results[0]) or "reset" in str(results[0])


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n",
        b"HTTP/1.1 200 OK\r\nX-No-Length: 1\r\n\r\nwho knows whether this is all",
    ],
)
async def test_an_answer_that_stops_halfway_is_no_answer(transport: HttpTransport, part: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number > 0:
            await peer.answer(b"whole")
        else:
            await peer.write(part)

    async with Server(script).run() as address:
        ask = asking(transport, address)
        with fails("in the middle of the answer"):
            await ask()
        assert b"".join((await ask()).body) == b"whole"


@pytest.mark.parametrize(
    "nonsense",
    [b"SSH-2.0-OpenSSH\r\n\r\n", b"\x00\xff" * 40, b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"],
)
async def test_what_is_not_http_is_refused(transport: HttpTransport, nonsense: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.write(nonsense)
        await peer.hung_up()

    async with Server(script).run() as address:
        with fails("not HTTP/1.1"):
            await asking(transport, address)()


async def test_a_timeout_closes_the_connection_and_fails_what_else_is_on_it(transport: HttpTransport) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.request()
            asked.set()
            await peer.hung_up()
            hung_up.set()
        else:
            await echo(peer)

    server = Server(script)
    async with server.run() as address:
        ask = asking(transport, address)
        other = asyncio.ensure_future(ask("/other"))
        await asked.wait()
        with fails("timed out after 20 ms"):
            await ask("/slow", timeout_ms=20)
        with fails("an earlier request on this connection: timed out after 20 ms"):
            await other
        await hung_up.wait()
        assert (await ask("/again")).status == 200
        assert len(server.peers) == 2


async def test_giving_up_a_long_poll_frees_its_lane(transport: HttpTransport) -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.request()
            asked.set()
            await peer.hung_up()
        else:
            await echo(peer)

    async with Server(script).run() as address:
        ask = asking(transport, address)
        poll = asyncio.ensure_future(ask("/poll"))
        await asked.wait()
        poll.cancel()
        with pytest.raises(asyncio.CancelledError):
            await poll
        assert (await ask("/next")).status == 200


async def test_giving_up_what_was_answered_leaves_the_connection_alone(transport: HttpTransport) -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await echo(peer)

    server = Server(script)
    async with server.run() as address:
        ask = asking(transport, address)
        task = asyncio.ensure_future(ask("/1"))
        await asked.wait()
        connection = transport._lanes[address, "test"].connection
        assert connection is not None
        # The answer arrives, and in the same step, before the task goes on, it is cancelled.
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        connection.get_buffer(-1)[: len(answer)] = answer
        connection.buffer_updated(len(answer))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await ask("/2")).status == 200
        assert len(server.peers) == 1


async def test_giving_up_before_it_was_sent_leaves_the_connection_alone(transport: HttpTransport) -> None:
    server = Server(echo)
    async with server.run() as address:
        ask = asking(transport, address)
        first, second = asyncio.ensure_future(ask("/1")), asyncio.ensure_future(ask("/2"))
        await asyncio.sleep(0)
        second.cancel()  # It waits for the connection that the first one is opening.
        assert (await first).status == 200
        assert second.cancelled()
        assert len(server.peers) == 1


async def test_an_idle_connection_that_the_server_closed_is_replaced(transport: HttpTransport) -> None:
    async def script(peer: Peer) -> None:
        first, _, _ = await peer.request()
        await peer.answer(first.encode())

    server = Server(script)
    async with server.run() as address:
        ask = asking(transport, address)
        for number in range(3):
            assert (await ask(f"/{number}")).status == 200
            await server.peers[-1].writer.wait_closed()
            line = transport._lanes[address, "test"].connection
            assert line is not None
            await line.lost
        assert len(server.peers) == 3


async def test_connection_close_is_obeyed(transport: HttpTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"last", extra="Connection: close\r\n")
        await peer.hung_up()

    server = Server(script)
    async with server.run() as address:
        ask = asking(transport, address)
        answered, behind = await asyncio.gather(ask("/1"), ask("/2"), return_exceptions=True)
        assert isinstance(answered, HttpReply)
        assert isinstance(behind, ConnectionFailed)
        assert (await ask("/3")).status == 200
        assert len(server.peers) == 2


async def test_an_answer_to_nothing_ends_the_connection(transport: HttpTransport) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"1")
        await peer.answer(b"2")
        await peer.hung_up()

    server = Server(script)
    async with server.run() as address:
        ask = asking(transport, address)
        assert b"".join((await ask()).body) == b"1"
        line = transport._lanes[address, "test"].connection
        assert line is not None
        await line.lost
        assert b"".join((await ask()).body) == b"1"
        assert len(server.peers) == 2


async def test_no_connection_in_time() -> None:
    transport = HttpTransport(connect_timeout_ms=10)
    # A listener whose backlog is full lets no one in and says nothing.
    async with full_backlog() as address:
        with fails("no connection within 10 ms", sent=False):
            await asking(transport, address)()
        with fails("before it was sent", sent=False):
            await asking(HttpTransport(), address)(timeout_ms=10)
    await transport.close()


@contextlib.asynccontextmanager
async def full_backlog() -> AsyncIterator[Address]:
    import socket

    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = Address(*listener.getsockname())
        while True:
            client = sockets.enter_context(socket.socket())
            client.setblocking(False)
            try:
                await asyncio.wait_for(loop.sock_connect(client, address), 0.2)
            except TimeoutError:
                break
        yield address


async def test_after_a_disconnect_a_new_connection_is_opened(transport: HttpTransport) -> None:
    connections: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        connections.append(peer.number)
        await peer.answer()
        await peer.hung_up()

    async with Server(script).run() as address:
        for _ in range(2):
            await asking(transport, address)()
            await transport.disconnect()
    assert connections == [0, 1]


async def test_close_fails_everything(transport: HttpTransport) -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.hung_up()

    async with Server(script).run() as address, full_backlog() as nowhere:
        flying = asyncio.ensure_future(asking(transport, address)())
        connecting = asyncio.ensure_future(asking(transport, nowhere)())
        await asked.wait()
        await transport.close()
        with fails("the transport is closed"):
            await flying
        with fails("the transport is closed", sent=False):
            await connecting
        with fails("the transport is closed", sent=False):
            await asking(transport, address)()


@pytest.mark.parametrize("name", ["X-Client-Id", "X\r\nInjected"])
async def test_a_line_break_cannot_smuggle_a_header(transport: HttpTransport, name: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        await transport.ask(
            *(Address("127.0.0.1", 1), "POST", "/"),
            headers={name: "a\r\nB: c"},
            lane="x",
            timeout_ms=1,
        )


async def test_against_aiohttp_in_order_and_on_one_connection(transport: HttpTransport) -> None:
    peers: set[object] = set()

    async def handle(request: web.Request) -> web.StreamResponse:
        peers.add(request.transport)
        body = await request.read()
        if request.path == "/chunked":
            response = web.StreamResponse()
            await response.prepare(request)
            for piece in (b"one,", b"two"):
                await response.write(piece)
            return response
        return web.Response(body=request.path.encode() + b"|" + body)

    application = web.Application(client_max_size=1 << 24)
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        address = Address(*runner.addresses[0][:2])
        ask = asking(transport, address)
        replies = await asyncio.gather(*(ask(f"/{n}", bytes([n]) * 50_000 * n) for n in range(10)))
        for n, reply in enumerate(replies):
            assert b"".join(reply.body) == f"/{n}|".encode() + bytes([n]) * 50_000 * n
        assert b"".join((await ask("/chunked")).body) == b"one,two"
        assert len(peers) == 1
    finally:
        await transport.close()
        await runner.cleanup()


CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""Self-signed for 127.0.0.1, with its key; made for these tests and good for a century."""


@contextlib.asynccontextmanager
async def tls_server(script: Script) -> AsyncIterator[Address]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    server = await asyncio.start_server(Server(script).serve, "127.0.0.1", 0, ssl=context)
    try:
        yield Address(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()


async def test_with_tls_everything_is_the_same() -> None:
    transport = HttpTransport(tls=ssl.create_default_context(cafile=str(CERTIFICATE)))
    async with tls_server(echo) as address:
        ask = asking(transport, address)
        body = bytes(300_000)
        replies = await asyncio.gather(ask("/1"), ask("/2", body))
        assert [b"".join(reply.body)[:7] for reply in replies] == [b"POST /1", b"POST /2"]
        await transport.close()


async def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    transport = HttpTransport(tls=ssl.create_default_context())
    async with tls_server(echo) as address:
        with fails("TLS: ", sent=False):
            await asking(transport, address)()
        await transport.close()


async def test_a_server_without_tls_is_no_server_with_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    transport = HttpTransport(tls=ssl.create_default_context())
    async with Server(script).run() as address:
        with fails("TLS: ", sent=False):
            await asking(transport, address)()
        await transport.close()
