"""A simulated network: delays from the seed, links that can be cut one way, nodes that die.

A request travels to its server after a delay, is handled there one at a time a connection, and
its answer travels back. On a cut link packets vanish, so that the asker learns of it only by its
own time-out, as with a half-open TCP connection; a dead process resets its connections.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from kafkalite.common import Address
from kafkalite.edge import Buffer, ConnectionFailed, Handler, HttpReply, HttpRequest


@dataclass(eq=False)
class _Server:
    """A bound listener."""

    network: SimulatedNetwork
    node: str
    address: Address
    listener: str
    handler: Handler
    max_body_bytes: int

    @property
    def port(self) -> int:
        return self.address.port

    async def close(self) -> None:
        self.network.unbind(self)


class _Connection:
    """One lane from one node to one address: requests in order, one handled at a time."""

    def __init__(self, network: SimulatedNetwork, source: str, address: Address) -> None:
        self.network = network
        self.source = source
        self.address = address
        self.server: _Server | None = None
        self.waiting: deque[tuple[HttpRequest, asyncio.Future[HttpReply], float]] = deque()
        self.worker: asyncio.Task[None] | None = None
        self.broken = False
        self._in_flight: asyncio.Future[HttpReply] | None = None

    def submit(self, request: HttpRequest) -> asyncio.Future[HttpReply]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[HttpReply] = loop.create_future()
        self.waiting.append((request, answer, loop.time() + self.network.delay()))
        if self.worker is None or self.worker.done():
            self.worker = loop.create_task(self._work(), name=f"{self.source}->{self.address}")
        return answer

    def break_off(self, reason: str, *, sent: bool = True) -> None:
        """Reset the connection: everything in flight fails."""
        if self.broken:
            return
        self.broken = True
        error = ConnectionFailed(self.address, reason, sent=sent)
        if self.worker is not None and self.worker is not asyncio.current_task():
            self.worker.cancel()
        answers = [answer for _, answer, _ in self.waiting]
        if self._in_flight is not None:
            answers.append(self._in_flight)
        for answer in answers:
            if not answer.done():
                answer.set_exception(error)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting and not self.broken:
            request, answer, arrival = self.waiting.popleft()
            self._in_flight = answer
            await asyncio.sleep(max(0.0, arrival - loop.time()))
            server = self.network.server_at(self.address)
            if server is None:
                self.break_off("connection refused", sent=False)
                return
            if self.network.is_cut(self.source, server.node):
                await loop.create_future()  # The packet is lost: only a reset or a time-out ends this.
            self.server = server
            reply = await self._handle(server, request)
            await asyncio.sleep(self.network.delay())
            if self.network.is_cut(server.node, self.source):
                await loop.create_future()
            if not answer.done():
                answer.set_result(reply)
            self._in_flight = None

    async def _handle(self, server: _Server, request: HttpRequest) -> HttpReply:
        if len(request.body) > server.max_body_bytes:
            return HttpReply(413)
        reply = await server.handler(
            HttpRequest(
                request.method,
                request.path,
                request.query,
                request.headers,
                request.body,
                server.listener,
                self.source,
            )
        )
        return HttpReply(reply.status, [b"".join(bytes(piece) for piece in reply.body)], reply.headers)


class SimulatedNetwork:
    """All links of one simulated world."""

    def __init__(
        self, chance: random.Random, *, min_delay_ms: float = 0.1, max_delay_ms: float = 2.0
    ) -> None:
        self._chance = chance
        self.min_delay_ms = min_delay_ms
        self.max_delay_ms = max_delay_ms
        self._servers: dict[Address, _Server] = {}
        self._connections: list[_Connection] = []
        self._cuts: set[tuple[str, str]] = set()
        self._next_port = 20_000

    def delay(self) -> float:
        """Seconds that the next packet travels."""
        return self._chance.uniform(self.min_delay_ms, self.max_delay_ms) / 1000

    def cut(self, source: str, target: str) -> None:
        """Lose every packet from ``source`` to ``target`` from now on."""
        self._cuts.add((source, target))

    def heal(self) -> None:
        """Let packets through again; connections that lost some are reset."""
        for connection in list(self._connections):
            node = connection.server.node if connection.server is not None else None
            if (connection.source, node) in self._cuts or (node, connection.source) in self._cuts:
                connection.break_off("connection reset")
        self._cuts.clear()

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self._cuts

    def kill(self, node: str) -> None:
        """The process ``node`` is gone: its listeners and all its connections with it."""
        for address, server in list(self._servers.items()):
            if server.node == node:
                del self._servers[address]
        for connection in list(self._connections):
            if connection.source == node or (
                connection.server is not None and connection.server.node == node
            ):
                connection.break_off("connection reset by peer")
        self._connections = [connection for connection in self._connections if not connection.broken]

    def server_at(self, address: Address) -> _Server | None:
        return self._servers.get(address)

    def bind(
        self, node: str, host: str, port: int, *, listener: str, handler: Handler, max_body_bytes: int
    ) -> _Server:
        if port == 0:
            port = self._next_port
            self._next_port += 1
        address = Address(host, port)
        if address in self._servers:
            raise OSError(f"{address} is in use")
        server = _Server(self, node, address, listener, handler, max_body_bytes)
        self._servers[address] = server
        return server

    def unbind(self, server: _Server) -> None:
        if self._servers.get(server.address) is server:
            del self._servers[server.address]
            for connection in list(self._connections):
                if connection.server is server:
                    connection.break_off("connection reset by peer")

    def connect(self, source: str, address: Address) -> _Connection:
        connection = _Connection(self, source, address)
        self._connections = [one for one in self._connections if not one.broken]
        self._connections.append(connection)
        return connection


class NodeNetwork:
    """One node's :class:`kafkalite.edge.Network`."""

    def __init__(self, network: SimulatedNetwork, node: str) -> None:
        self._network = network
        self._node = node

    async def listen(
        self, host: str, port: int, *, listener: str, handler: Handler, max_body_bytes: int
    ) -> _Server:
        return self._network.bind(
            self._node, host, port, listener=listener, handler=handler, max_body_bytes=max_body_bytes
        )


class NodeTransport:
    """One node's :class:`kafkalite.edge.Transport`."""

    def __init__(self, network: SimulatedNetwork, node: str) -> None:
        self._network = network
        self._node = node
        self._lanes: dict[tuple[Address, str], _Connection] = {}

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
        connection = self._lanes.get((address, lane))
        if connection is None or connection.broken:
            connection = self._lanes[address, lane] = self._network.connect(self._node, address)
        parts = urlsplit(target)
        answer = connection.submit(
            HttpRequest(
                method,
                parts.path,
                parse_qs(parts.query),
                {name.lower(): value for name, value in headers.items()},
                memoryview(b"".join(bytes(piece) for piece in body)),
                listener="",
            )
        )
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await answer
        except TimeoutError:
            connection.break_off("timed out")
            raise ConnectionFailed(address, f"no answer within {timeout_ms} ms") from None
        except asyncio.CancelledError:
            connection.break_off("the asker went away")
            raise

    async def close(self) -> None:
        for connection in self._lanes.values():
            connection.break_off("closed")
        self._lanes.clear()
