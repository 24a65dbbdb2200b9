"""A TCP proxy that fails on command: cuts, swallows, holds and delays what passes between two sides.

It stands between clients and one server. Every connection has two directions, each with its own
behaviour, so that a request can arrive whose answer never does. Where the first bytes tell who is
calling (:meth:`TcpProxy.identify`), each caller has a :class:`Line` of its own, so that one link can
be cut and the others go on. What a line did to the traffic is counted: a fault that nothing met is
no fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator, Iterable
from typing import ClassVar

import msgspec

from kafkalite.common import Address


class Direction(enum.Enum):
    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class Line:
    """How the traffic of one caller is treated."""

    def __init__(self, connections: Iterable[ProxiedConnection]) -> None:
        self._connections = connections
        self._refuses = False
        self._swallowed: set[Direction] = set()
        self._open = {direction: asyncio.Event() for direction in Direction}
        for gate in self._open.values():
            gate.set()
        self.delay_s = dict.fromkeys(Direction, 0.0)
        """How long each piece of data is kept, by direction."""
        self.met = 0
        """Connections and pieces of data that were refused, dropped, held or delayed so far."""

    @property
    def refuses(self) -> bool:
        """Whether new connections are turned away."""
        return self._refuses

    def cut(self) -> None:
        """Drop all connections and refuse new ones until :meth:`heal`."""
        self._refuses = True
        self.sever()

    def sever(self) -> None:
        """Drop all connections; new ones are welcome."""
        for connection in list(self._connections):
            if connection.line is self:
                self.met += 1
                connection.drop()

    def swallow(self, *directions: Direction) -> None:
        """Let what is sent that way vanish; both sides believe that they are connected."""
        self._swallowed.update(directions or Direction)

    def hold(self, *directions: Direction) -> None:
        """Keep what is sent that way until :meth:`heal`, as a network does that TCP repeats itself on."""
        for direction in directions or tuple(Direction):
            self._open[direction].clear()

    def heal(self) -> None:
        """Pass on everything again. What was swallowed is lost; what was held goes on."""
        self._refuses = False
        self._swallowed.clear()
        for gate in self._open.values():
            gate.set()

    async def pass_on(self, direction: Direction) -> bool:
        """Wait as long as a piece of data is to wait; False where it is to vanish."""
        if self.delay_s[direction]:
            self.met += 1
            await asyncio.sleep(self.delay_s[direction])
        if not self._open[direction].is_set():
            self.met += 1
            await self._open[direction].wait()
        if direction in self._swallowed:
            self.met += 1
            return False
        return True


class ProxiedConnection(msgspec.Struct, eq=False):
    """One connection through the proxy."""

    line: Line
    number: int
    """Counts from 1 in the order of acceptance."""
    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    buffers: dict[Direction, bytearray] = msgspec.field(default_factory=dict)
    """Room for a :meth:`TcpProxy.filter` that needs to see whole messages."""
    notes: set[str] = msgspec.field(default_factory=set)
    """Room for what a filter remembers of this connection."""

    def drop(self) -> None:
        """Cut both sides at once, without a goodbye."""
        for writer in self.writers:
            writer.transport.abort()


class TcpProxy:
    """Listens on a free loopback port and passes on to ``target``."""

    identifies: ClassVar[bool] = False
    """Whether :meth:`identify` tells callers apart, so that nobody is turned away unheard."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._connections: dict[ProxiedConnection, asyncio.Task[None]] = {}
        self._lines: dict[str, Line] = {}
        self.accepted = 0
        """How many connections have come so far, refused ones included."""

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def address(self) -> Address:
        """Where clients connect."""
        assert self._server is not None
        return Address("127.0.0.1", int(self._server.sockets[0].getsockname()[1]))

    @property
    def connections(self) -> list[ProxiedConnection]:
        """The open ones, in the order of acceptance."""
        return list(self._connections)

    def line(self, caller: str = "") -> Line:
        """How ``caller`` is treated; the empty one is everybody who was not identified."""
        if caller not in self._lines:
            self._lines[caller] = Line(self._connections.keys())
        return self._lines[caller]

    @property
    def delay_s(self) -> dict[Direction, float]:
        """How long each piece of data is kept, by direction."""
        return self.line().delay_s

    def cut(self) -> None:
        """As :meth:`Line.cut`, like the four below, for everybody who was not identified."""
        self.line().cut()

    def sever(self) -> None:
        self.line().sever()

    def swallow(self, *directions: Direction) -> None:
        self.line().swallow(*directions)

    def hold(self, *directions: Direction) -> None:
        self.line().hold(*directions)

    def heal(self) -> None:
        self.line().heal()

    def identify(self, first: bytes) -> str:
        """Who is calling, from the first bytes sent to the server. To be overridden."""
        return ""

    def filter(self, connection: ProxiedConnection, direction: Direction, data: bytes) -> bytes:
        """What to pass on instead of ``data``. To be overridden; may drop the connection."""
        return data

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        number = self.accepted
        if not self.identifies and self.line().refuses:
            self.line().met += 1
            writer.transport.abort()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        connection = ProxiedConnection(self.line(), number, (writer, there_writer))
        task = asyncio.current_task()
        assert task is not None
        self._connections[connection] = task
        try:
            with contextlib.suppress(OSError):
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(self._pump(connection, Direction.TO_SERVER, reader, there_writer))
                    pumps.create_task(self._pump(connection, Direction.TO_CLIENT, there_reader, writer))
        finally:
            del self._connections[connection]
            connection.drop()

    async def _pump(
        self,
        connection: ProxiedConnection,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(OSError):  # Whichever side ends it, the other is told below.
            is_first = direction is Direction.TO_SERVER
            while data := await reader.read(65536):
                if is_first:
                    is_first = False
                    connection.line = self.line(self.identify(data))
                    if connection.line.refuses:
                        connection.line.met += 1
                        break
                passes = await connection.line.pass_on(direction)
                data = self.filter(connection, direction, data)
                if data and passes:
                    writer.write(data)
                    await writer.drain()
        connection.drop()


@contextlib.asynccontextmanager
async def proxies(*targets: Address) -> AsyncIterator[list[TcpProxy]]:
    """A proxy before each target."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(TcpProxy(target)) for target in targets]
