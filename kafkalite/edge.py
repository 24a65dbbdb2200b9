"""The narrow edges between the rules and the world, handed in at construction.

Time, chance, work off the loop and the network reach brokers and clients only through these
(files: :class:`kafkalite.log.files.Files`; ZooKeeper: :class:`zk.client.ZooKeeper`). Nothing else
reads clocks, entropy, threads or sockets, which is what lets the simulation run whole clusters
in one process under virtual time. Sleeping and time limits go through asyncio's own timers: the
simulation's loop runs those on virtual time too.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ParamSpec, Protocol, TypeAlias, TypeVar

import msgspec

from kafkalite.common import Address

P = ParamSpec("P")
T = TypeVar("T")

Buffer: TypeAlias = bytes | bytearray | memoryview


class Clock(Protocol):
    """Wall time for what people and records see, monotonic time for every duration."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; comparable with the loop's own ``time()``."""
        ...


class Offload(Protocol):
    """Runs blocking work (fsync, recovery, deletion, cold reads) away from the loop."""

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``work`` off the loop and return what it returns or raise what it raises."""
        ...


class HttpRequest(msgspec.Struct, frozen=True):
    """What a server hands to its handler. Header names are lower-case."""

    method: str
    path: str
    """The path without the query."""
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: memoryview
    listener: str
    """The name of the listener that the request came in on."""
    peer: str = ""
    """The other side's address, for logs."""
    correlation_id: str | None = None
    """`X-Correlation-Id`, which is not among the headers: what tells a client's requests apart."""


class HttpReply(msgspec.Struct, frozen=True):
    """An answer, on both sides: a server sends it, a transport returns it."""

    status: int
    body: Sequence[Buffer] = ()
    """The body in pieces, to be sent as they lie; a transport returns at most one piece."""
    headers: Mapping[str, str] = {}
    stream: Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]] | None = None
    """Set for an answer without an end (server-sent events): called with an async ``write``."""
    correlation_id: str | None = None
    """Set by a handler to that of the request. A transport leaves it out: answers come in order."""


Handler: TypeAlias = Callable[[HttpRequest], Awaitable[HttpReply]]
"""A handler is cancelled when the connection that waits for its answer is lost."""


class ConnectionFailed(Exception):
    """No answer came: refused, reset, timed out. Whether the request took effect is unknown.

    ``sent`` is False only where it is certain that no byte of the request left this process.
    """

    def __init__(self, address: Address, reason: str, *, sent: bool = True) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason
        self.sent = sent


class Transport(Protocol):
    """Asks servers. Requests of one lane to one address are sent, and answered, in order."""

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
        """Send one request and wait for its answer.

        ``lane`` names the purpose ("produce", "fetch", "control" …): each has a connection of
        its own to each address, since a server answers one request at a time a connection.
        Several requests may be in flight on a lane (pipelining). Raises
        :class:`ConnectionFailed`; then every other request in flight on that connection fails
        too, and the next one opens a new connection.
        """
        ...

    async def disconnect(self) -> None:
        """Drop all connections; requests in flight fail, later ones open new connections."""
        ...

    async def close(self) -> None:
        """Drop all connections; requests in flight fail, and so does every later one."""
        ...


class Listening(Protocol):
    """A bound listener."""

    @property
    def port(self) -> int:
        """The port that was bound (of interest where 0 was asked for)."""
        ...

    async def close(self) -> None:
        """Stop accepting, cancel the handlers that run, drop the connections."""
        ...


class Network(Protocol):
    """Binds listeners."""

    async def listen(
        self, host: str, port: int, *, listener: str, handler: Handler, max_body_bytes: int
    ) -> Listening:
        """Serve HTTP/1.1 on ``host:port``. Raises OSError where that cannot be bound.

        A body over ``max_body_bytes`` is answered 413 without being read to its end.
        """
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    monotonic = staticmethod(time.monotonic)


class ThreadOffload:
    """Blocking work on the loop's default thread pool."""

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(work, *args, **kwargs)


def system_random() -> random.Random:
    """Chance from the operating system's entropy."""
    return random.SystemRandom()
