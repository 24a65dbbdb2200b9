"""A simulated network: delays from the seed, links that can be cut one way, processes that die.

A connection is a lane from one process to one address. Its requests arrive in order, its server handles
one at a time, in the server's own process, so a paused server stands still with the request in its
hands. On a cut link packets wait, as TCP's retransmissions do; when the link heals, the connection is
reset or what waited arrives late, as chance has it. Nobody is told of a cut: the asker learns of it by
its own time-out. What an asker that gives up had sent still arrives; then the server sees the
connection close and the handler is cancelled. A dead process resets its connections; a machine without
power says nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qs

from kafkalite.common import Address
from kafkalite.edge import Buffer, ConnectionFailed, Handler, HttpReply, HttpRequest

from .loop import Process

Packet: TypeAlias = Callable[[], None]


@dataclass(eq=False, slots=True)
class _Server:
    """A bound listener of one process."""

    network: SimulatedNetwork
    process: Process
    address: Address
    listener: str
    handler: Handler
    max_body_bytes: int

    @property
    def port(self) -> int:
        return self.address.port

    async def close(self) -> None:
        self.network.unbind(self)


@dataclass(eq=False, slots=True)
class _Exchange:
    """One request and where its answer goes."""

    connection: _Connection
    request: HttpRequest
    answer: asyncio.Future[HttpReply]
    reply: HttpReply | None = None
    """Under way to the asker."""

    def arrive(self) -> None:
        """The request's packet."""
        self.connection.arrived(self)

    def answered(self) -> None:
        """The answer's packet."""
        self.connection.answered(self)

    def time_out(self, timeout_ms: int) -> None:
        """The asker has waited long enough: it closes the connection."""
        if not self.answer.done():
            self.answer.set_exception(
                ConnectionFailed(self.connection.address, f"no answer within {timeout_ms} ms")
            )
            self.connection.close("timed out")


class _Connection:
    """One lane from one process to one address: requests in order, one handled at a time."""

    def __init__(self, network: SimulatedNetwork, source: Process, address: Address) -> None:
        self.network = network
        self.source = source
        self.address = address
        self.server: _Server | None = None
        self.broken = False
        """The asker is done with it."""
        self._unanswered: deque[_Exchange] = deque()
        self._queue: deque[_Exchange] = deque()
        """Arrived, waiting for their turn at the server."""
        self._handling: asyncio.Task[None] | None = None
        self._last_up = 0.0
        self._last_down = 0.0
        self.blocked: deque[tuple[str, str, Packet]] = deque()
        """(from, to, packet): what a cut holds back, and what came after it."""

    # --- the asker's side ----------------------------------------------------------------

    def submit(self, request: HttpRequest) -> _Exchange:
        exchange = _Exchange(self, request, asyncio.get_running_loop().create_future())
        self._unanswered.append(exchange)
        self._send_up(exchange.arrive)
        return exchange

    def break_off(self, reason: str, *, sent: bool = True) -> None:
        """The asker's end is closed or reset: everything in flight fails."""
        if self.broken:
            return
        self.broken = True
        error = ConnectionFailed(self.address, reason, sent=sent)
        unanswered, self._unanswered = self._unanswered, deque()
        for exchange in unanswered:
            if not exchange.answer.done():
                exchange.answer.set_exception(error)
                exchange.answer.exception()  # Whoever was cancelled does not look at it.

    def close(self, reason: str) -> None:
        """The asker gives up: what it has sent arrives, and after it the news that it is gone."""
        if not self.broken:
            self.break_off(reason)
            self._send_up(self._closed_by_asker)

    # --- packets -------------------------------------------------------------------------

    def _send_up(self, packet: Packet) -> None:
        server = self.server or self.network.server_at(self.address)
        target = server.process.name if server is not None else ""
        self._last_up = self._send(self.source.name, target, self._last_up, packet)

    def _send_down(self, packet: Packet) -> None:
        assert self.server is not None
        self._last_down = self._send(self.server.process.name, self.source.name, self._last_down, packet)

    def _send(self, source: str, target: str, after: float, packet: Packet) -> float:
        loop = asyncio.get_running_loop()
        at = max(after, loop.time() + self.network.delay(source, target))
        loop.call_at(at, self._travel, source, target, packet, context=self.network.nowhere)
        return at

    def _travel(self, source: str, target: str, packet: Packet) -> None:
        if self.network.is_cut(source, target) or any(held[:2] == (source, target) for held in self.blocked):
            self.blocked.append((source, target, packet))
        else:
            packet()

    def unblock(self) -> None:
        """Let through what no cut holds back any more, in order."""
        held, self.blocked = self.blocked, deque()
        for source, target, packet in held:
            if self.network.is_cut(source, target):
                self.blocked.append((source, target, packet))
            else:
                packet()

    # --- the server's side ---------------------------------------------------------------

    def arrived(self, exchange: _Exchange) -> None:
        server = self.network.server_at(self.address)
        if self.server is None:
            if server is None:
                self.break_off("connection refused", sent=False)
                return
            self.server = server
        elif server is not self.server:
            self.break_off("connection reset by peer")
            return
        self._queue.append(exchange)
        self._next()

    def _next(self) -> None:
        if self._handling is None and self._queue:
            server, exchange = self.server, self._queue.popleft()
            assert server is not None
            self._handling = server.process.spawn(
                self._handle(server, exchange), f"{self.source.name}->{server.process.name}"
            )

    async def _handle(self, server: _Server, exchange: _Exchange) -> None:
        request = exchange.request
        if len(request.body) > server.max_body_bytes:
            reply = HttpReply(413)
        else:
            try:
                reply = await server.handler(
                    HttpRequest(
                        request.method,
                        request.path,
                        request.query,
                        request.headers,
                        request.body,
                        server.listener,
                        self.source.name,
                        request.correlation_id,
                    )
                )
            except asyncio.CancelledError:
                self._handling = None
                raise
        exchange.reply = HttpReply(reply.status, [b"".join(reply.body)], reply.headers)
        self._handling = None
        self._send_down(exchange.answered)
        self._next()

    def answered(self, exchange: _Exchange) -> None:
        if not self.broken and self._unanswered and self._unanswered[0] is exchange:
            self._unanswered.popleft()
            if not exchange.answer.done():
                assert exchange.reply is not None
                exchange.answer.set_result(exchange.reply)

    def _closed_by_asker(self) -> None:
        """The server notices after it has begun with what came before, also where it stood still."""
        if self.server is not None and self.server.process.is_alive:
            loop = asyncio.get_running_loop()
            loop.call_later(0.0001, self._give_up, context=self.server.process.context())

    def _give_up(self) -> None:
        self._queue.clear()
        if self._handling is not None:
            self._handling.cancel()

    def reset(self, *, is_silent: bool = False) -> None:
        """One end is gone: drop what the server does, and tell the asker unless nobody is left to."""
        self._closed_by_asker()
        self.blocked.clear()
        if not is_silent:
            self.break_off("connection reset by peer")


class SimulatedNetwork:
    """All links of one simulated world."""

    def __init__(
        self, chance: random.Random, *, min_delay_ms: float = 0.1, max_delay_ms: float = 2.0
    ) -> None:
        self._chance = chance
        self.min_delay_ms = min_delay_ms
        self.max_delay_ms = max_delay_ms
        self.slow: dict[tuple[str, str], float] = {}
        """Milliseconds added on a link, by (from, to)."""
        self.nowhere = contextvars.Context()
        """Packets travel in it: they belong to no process."""
        self._servers: dict[Address, _Server] = {}
        self._connections: list[_Connection] = []
        self._cuts: set[tuple[str, str]] = set()
        self._next_port = 20_000

    def delay(self, source: str, target: str) -> float:
        """Seconds that the next packet travels."""
        delay = self.min_delay_ms + (self.max_delay_ms - self.min_delay_ms) * self._chance.random()
        if self.slow:
            delay += self._chance.uniform(0.0, self.slow.get((source, target), 0.0))
        return delay / 1000

    def cut(self, source: str, target: str) -> None:
        """Let no packet from ``source`` to ``target`` through from now on."""
        self._cuts.add((source, target))

    def mend(self, source: str, target: str) -> None:
        """Let packets through again: what waited arrives late, or its connection is reset."""
        self._cuts.discard((source, target))
        for connection in list(self._connections):
            if any(held[:2] == (source, target) for held in connection.blocked):
                if self._chance.random() < 0.5:
                    connection.reset()
                else:
                    connection.unblock()

    def heal(self) -> None:
        """Mend every cut and speed up every slow link."""
        self.slow.clear()
        for source, target in sorted(self._cuts):
            self.mend(source, target)

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self._cuts

    def kill(self, process: Process, *, is_silent: bool = False) -> None:
        """The process is gone: its listeners and all its connections with it.

        ``is_silent``: its machine is, too, so nobody is told; askers run into their time-outs.
        """
        for address, server in list(self._servers.items()):
            if server.process is process:
                del self._servers[address]
        for connection in self._connections:
            if connection.source is process:
                connection.broken = True
                connection._send_up(connection._closed_by_asker)
            elif connection.server is not None and connection.server.process is process:
                connection.reset(is_silent=is_silent)
        self._connections = [connection for connection in self._connections if not connection.broken]

    def server_at(self, address: Address) -> _Server | None:
        return self._servers.get(address)

    def bind(
        self, process: Process, host: str, port: int, *, listener: str, handler: Handler, max_body_bytes: int
    ) -> _Server:
        if port == 0:
            port = self._next_port
            self._next_port += 1
        address = Address(host, port)
        if address in self._servers:
            raise OSError(f"{address} is in use")
        server = _Server(self, process, address, listener, handler, max_body_bytes)
        self._servers[address] = server
        return server

    def unbind(self, server: _Server) -> None:
        if self._servers.get(server.address) is server:
            del self._servers[server.address]
            for connection in list(self._connections):
                if connection.server is server:
                    connection.reset()

    def connect(self, source: Process, address: Address) -> _Connection:
        connection = _Connection(self, source, address)
        self._connections = [one for one in self._connections if not one.broken or one.blocked]
        self._connections.append(connection)
        return connection


class NodeNetwork:
    """One process's :class:`kafkalite.edge.Network`."""

    def __init__(self, network: SimulatedNetwork, process: Process) -> None:
        self._network = network
        self._process = process

    async def listen(
        self, host: str, port: int, *, listener: str, handler: Handler, max_body_bytes: int
    ) -> _Server:
        return self._network.bind(
            self._process, host, port, listener=listener, handler=handler, max_body_bytes=max_body_bytes
        )


class NodeTransport:
    """One process's :class:`kafkalite.edge.Transport`."""

    def __init__(self, network: SimulatedNetwork, process: Process) -> None:
        self._network = network
        self._process = process
        self._lanes: dict[tuple[Address, str], _Connection] = {}
        self._is_closed = False

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
        if not self._process.is_alive:  # A crash in the middle of this very step.
            await asyncio.get_running_loop().create_future()
        if self._is_closed:
            raise ConnectionFailed(address, "the transport is closed", sent=False)
        connection = self._lanes.get((address, lane))
        if connection is None or connection.broken:
            connection = self._lanes[address, lane] = self._network.connect(self._process, address)
        path, _, query = target.partition("?")
        sent = {name.lower(): value for name, value in headers.items()}
        correlation_id = sent.pop("x-correlation-id", None)
        exchange = connection.submit(
            HttpRequest(
                method,
                path,
                parse_qs(query) if query else {},
                sent,
                memoryview(b"".join(body)),
                listener="",
                correlation_id=correlation_id,
            )
        )
        timer = asyncio.get_running_loop().call_later(timeout_ms / 1000, exchange.time_out, timeout_ms)
        try:
            return await exchange.answer
        except asyncio.CancelledError:
            connection.close("the asker went away")
            raise
        finally:
            timer.cancel()

    async def disconnect(self) -> None:
        for connection in self._lanes.values():
            connection.close("closed")
        self._lanes.clear()

    async def close(self) -> None:
        self._is_closed = True
        await self.disconnect()
