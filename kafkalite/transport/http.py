"""Pipelined HTTP/1.1: one connection for each address and lane.

A server answers one request at a time on a connection, in order. So requests that must stay in
order, and may be in flight together, share a *lane*, and a lane is one connection: requests are
written one after another without waiting, and answers are matched to them by order alone. What
may block (a long poll) has a lane of its own.

That makes a request's fate the connection's. A request that times out or is given up while its
answer is due closes the connection, for nothing behind it could be answered; everything else in
flight there fails too, and the next request opens a new connection. A connection that the server
closed while nothing was in flight is replaced before anything is sent.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, cast

import httptools

from kafkalite.common import Address
from kafkalite.edge import Buffer, ConnectionFailed, HttpReply

CONNECT_TIMEOUT_MS: Final = 10_000
"""Kafka's `socket.connection.setup.timeout.ms`."""


class HttpTransport:
    """The real :class:`kafkalite.edge.Transport`. Belongs to the loop that it is first used on.

    ``connect_timeout_ms`` bounds the opening of a connection, within a request's own timeout.
    With ``tls`` every connection is encrypted. The methods served are those whose answers may
    have a body (GET, POST): a HEAD's answer could not be told apart from one that stops short.
    """

    def __init__(
        self, *, connect_timeout_ms: int = CONNECT_TIMEOUT_MS, tls: ssl.SSLContext | None = None
    ) -> None:
        self._connect_timeout_ms = connect_timeout_ms
        self._tls = tls
        self._lanes: dict[tuple[Address, str], _Lane] = {}
        self._waiting: dict[asyncio.Timeout, None] = {}
        """The time limits of requests that are not sent yet."""
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
        """Send one request and wait for its answer; see :class:`kafkalite.edge.Transport`.

        Raises ValueError for a line break in the target or a header.
        """
        head = _head(address, method, target, headers, body)
        line = self._lanes.get((address, lane))
        if line is None:
            line = self._lanes[address, lane] = _Lane()
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(timeout_ms / 1000) as limit:
                self._waiting[limit] = None
                try:
                    # The lock hands over in the order of arrival: so do requests leave.
                    async with line.lock:
                        connection = await self._writable(address, line)
                        answer = connection.send(head, body)
                finally:
                    del self._waiting[limit]
                try:
                    return await answer
                except asyncio.CancelledError:
                    if limit.expired():
                        reason = f"timed out after {timeout_ms} ms"
                    else:
                        reason = "the request was given up"
                    connection.give_up(answer, reason)
                    raise
        except TimeoutError:
            if self._is_closed:
                raise _closed(address) from None
            reason = f"timed out after {timeout_ms} ms"
            if connection is None:
                raise ConnectionFailed(address, f"{reason} before it was sent", sent=False) from None
            raise ConnectionFailed(address, reason) from None

    async def _writable(self, address: Address, line: _Lane) -> _Connection:
        """Return the lane's connection, open and ready for more to be written."""
        while True:
            if self._is_closed:
                raise _closed(address)
            connection = line.connection
            if connection is None or connection.is_closed:
                connection = line.connection = await self._connect(address)
            elif connection.is_paused:
                await connection.resumed()
            else:
                return connection

    async def _connect(self, address: Address) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_ms / 1000):
                _, connection = await loop.create_connection(
                    lambda: _Connection(address, loop), address.host, address.port, ssl=self._tls
                )
        except TimeoutError:
            reason = f"no connection within {self._connect_timeout_ms} ms"
            raise ConnectionFailed(address, reason, sent=False) from None
        except OSError as error:
            raise ConnectionFailed(address, _say(error), sent=False) from error
        return connection

    async def close(self) -> None:
        """Drop all connections; requests in flight fail, and so does every later one."""
        self._is_closed = True
        now = asyncio.get_running_loop().time()
        for limit in self._waiting:
            limit.reschedule(now)
        for line in self._lanes.values():
            if line.connection is not None:
                line.connection.fail("the transport is closed")
                await line.connection.lost
        self._lanes.clear()


def _closed(address: Address) -> ConnectionFailed:
    return ConnectionFailed(address, "the transport is closed", sent=False)


class _Lane:
    """One purpose at one address: at most one connection at a time."""

    __slots__ = ("connection", "lock")

    def __init__(self) -> None:
        self.connection: _Connection | None = None
        self.lock = asyncio.Lock()
        """Held from choosing the connection to writing on it."""


class _Connection(asyncio.Protocol):
    """One connection: writes requests, reads answers, matches them by order."""

    def __init__(self, address: Address, loop: asyncio.AbstractEventLoop) -> None:
        self._address = address
        self._loop = loop
        self._in_flight: deque[asyncio.Future[HttpReply]] = deque()
        """Whose answers are due, the next one first."""
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._is_mid_answer = False
        self._resumed: asyncio.Future[None] | None = None
        """Set while the socket's write buffer is full."""
        self.is_closed = False
        """Nothing may be sent on it any more."""
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the socket is gone."""

    @property
    def is_paused(self) -> bool:
        return self._resumed is not None

    async def resumed(self) -> None:
        """Wait until more may be written, or the connection is closed."""
        if self._resumed is not None:
            # Shielded: that one waiter is cancelled must not wake another too early.
            await asyncio.shield(self._resumed)

    def send(self, head: bytes, body: Sequence[Buffer]) -> asyncio.Future[HttpReply]:
        """Write a request; the future gets its answer or ConnectionFailed."""
        answer: asyncio.Future[HttpReply] = self._loop.create_future()
        self._in_flight.append(answer)
        if body:
            self._transport.writelines((head, *body))
        else:
            self._transport.write(head)
        return answer

    def give_up(self, answer: asyncio.Future[HttpReply], reason: str) -> None:
        """Close the connection if ``answer`` is still due: those behind it would wait for it."""
        if answer in self._in_flight:
            self.fail(f"an earlier request on this connection: {reason}")

    def fail(self, reason: str) -> None:
        """Close the connection at once and fail all that is in flight."""
        self.is_closed = True
        self._transport.abort()
        while self._in_flight:
            answer = self._in_flight.popleft()
            if not answer.done():
                answer.set_exception(ConnectionFailed(self._address, reason))
                answer.exception()  # Its asker may be cancelled in this very step and never look.
        self.resume_writing()

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it.
        sock = transport.get_extra_info("socket")
        if sock is not None:
            # A request is written whole; waiting to merge it with a next one only delays it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(f"the answer is not HTTP/1.1: {error}")

    def eof_received(self) -> bool:
        self.fail(self._cut_off("closed"))
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.fail(self._cut_off(_say(error) if error is not None else "closed"))
        if not self.lost.done():
            self.lost.set_result(None)

    def _cut_off(self, how: str) -> str:
        how = "the connection was closed" if how == "closed" else how
        return f"{how} in the middle of the answer" if self._is_mid_answer else how

    def pause_writing(self) -> None:
        if self._resumed is None:
            self._resumed = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._resumed is not None:
            self._resumed.set_result(None)
            self._resumed = None

    # The parser calls these.

    def on_message_begin(self) -> None:
        self._is_mid_answer = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("utf-8", "surrogateescape")

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        headers, pieces = self._headers, self._body
        self._headers, self._body, self._is_mid_answer = {}, [], False
        if status < 200 or self.is_closed:
            return  # An interim answer (100 Continue): the real one follows.
        if not self._in_flight:
            self.fail("an answer came that nobody asked for")
            return
        answer = self._in_flight.popleft()
        if not answer.done():
            # Put together once: a buffer that grows is copied again and again.
            body = tuple(pieces) if len(pieces) < 2 else (b"".join(pieces),)
            answer.set_result(HttpReply(status, body, headers))
        if not self._parser.should_keep_alive():
            self.fail("the server closed the connection after an earlier answer")


def _head(
    address: Address, method: str, target: str, headers: Mapping[str, str], body: Sequence[Buffer]
) -> bytes:
    """Write the request up to the body."""
    size = 0
    for piece in body:
        size += piece.nbytes if isinstance(piece, memoryview) else len(piece)
    lines = [f"{method} {target} HTTP/1.1", f"Host: {address}", f"Content-Length: {size}"]
    for name, value in headers.items():
        lines.append(f"{name}: {value}")
    for line in lines:
        if "\r" in line or "\n" in line:
            raise ValueError(f"a line break in {line!r}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


_REASONS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.ETIMEDOUT: "the network timed out",
}


def _say(error: Exception) -> str:
    """Say what failed in the same words on every system."""
    if isinstance(error, socket.gaierror):
        return "host name not found"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    number = getattr(error, "errno", None)
    if number is None:
        # Where a name has several addresses, asyncio joins what it heard from each in one text.
        number = next((n for n in _REASONS if f"[Errno {n}]" in str(error)), None)
    return _REASONS.get(number, str(error) or type(error).__name__) if number is not None else str(error)
