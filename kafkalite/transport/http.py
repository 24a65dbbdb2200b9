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
import re
import socket
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, cast

import httptools

from kafkalite.common import Address
from kafkalite.edge import Buffer, ConnectionFailed, HttpReply
from kafkalite.transport.framing import MAX_KNOWN_HEADS, SCRATCH_BYTES, Framed, Heads, plain_fields

CONNECT_TIMEOUT_MS: Final = 10_000
"""Kafka's `socket.connection.setup.timeout.ms`."""
REUSE_BYTES: Final = 2 << 20
"""A connection keeps the buffer of an answer up to this size for the next one."""


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
        self._heads = Heads(_read_head)
        self._scratch = bytearray(SCRATCH_BYTES)

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
        line = self._lanes.get((address, lane))
        if line is None:
            line = self._lanes[address, lane] = _Lane(address)
        head = line.head(method, target, headers, body)
        connection = line.connection
        if connection is not None and connection.is_writable and not line.waiting:
            answer = connection.send(head, body, timeout_ms=timeout_ms)
        else:
            connection, answer = await self._wait_and_send(address, line, head, body, timeout_ms)
        try:
            return await answer
        except asyncio.CancelledError:
            connection.give_up(answer)
            raise

    async def _wait_and_send(
        self, address: Address, line: _Lane, head: bytes, body: Sequence[Buffer], timeout_ms: int
    ) -> tuple[_Connection, asyncio.Future[HttpReply]]:
        """Send once what came before has been sent and the lane has a connection that takes more."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        line.waiting += 1
        try:
            async with asyncio.timeout(timeout_ms / 1000) as limit:
                self._waiting[limit] = None
                try:
                    # The lock hands over in the order of arrival: so do requests leave.
                    async with line.lock:
                        connection = await self._writable(address, line)
                        waited_s = loop.time() - began
                        return connection, connection.send(
                            head, body, timeout_ms=timeout_ms, waited_s=waited_s
                        )
                finally:
                    del self._waiting[limit]
        except TimeoutError:
            if self._is_closed:
                raise _closed(address) from None
            reason = f"timed out after {timeout_ms} ms before it was sent"
            raise ConnectionFailed(address, reason, sent=False) from None
        finally:
            line.waiting -= 1

    async def _writable(self, address: Address, line: _Lane) -> _Connection:
        """Return the lane's connection, open and ready for more to be written."""
        while True:
            if self._is_closed:
                raise _closed(address)
            connection = line.connection
            if connection is None or connection.is_closed:
                connection = line.connection = await self._connect(address)
            elif connection.is_writable:
                return connection
            else:
                await connection.resumed()

    async def _connect(self, address: Address) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_ms / 1000):
                _, connection = await loop.create_connection(
                    lambda: _Connection(address, loop, self._heads, self._scratch),
                    address.host,
                    address.port,
                    ssl=self._tls,
                )
        except TimeoutError:
            reason = f"no connection within {self._connect_timeout_ms} ms"
            raise ConnectionFailed(address, reason, sent=False) from None
        except OSError as error:
            raise ConnectionFailed(address, _say(error), sent=False) from error
        return connection

    async def disconnect(self) -> None:
        """Drop all connections; requests in flight fail, later ones open new connections."""
        await self._drop("disconnected")

    async def close(self) -> None:
        """Drop all connections; requests in flight fail, and so does every later one."""
        self._is_closed = True
        now = asyncio.get_running_loop().time()
        for limit in self._waiting:
            limit.reschedule(now)
        await self._drop("the transport is closed")
        self._lanes.clear()

    async def _drop(self, reason: str) -> None:
        for line in list(self._lanes.values()):
            if line.connection is not None:
                line.connection.fail(reason)
                await line.connection.lost


def _closed(address: Address) -> ConnectionFailed:
    return ConnectionFailed(address, "the transport is closed", sent=False)


class _Lane:
    """One purpose at one address: at most one connection at a time."""

    __slots__ = ("_address", "_heads", "connection", "lock", "waiting")

    def __init__(self, address: Address) -> None:
        self.connection: _Connection | None = None
        self.lock = asyncio.Lock()
        """Held from choosing the connection to writing on it, where that takes waiting."""
        self.waiting = 0
        """Requests that hold the lock or wait for it: nobody may overtake them."""
        self._address = address
        self._heads: dict[tuple[str, str, tuple[tuple[str, str], ...]], bytes] = {}

    def head(self, method: str, target: str, headers: Mapping[str, str], body: Sequence[Buffer]) -> bytes:
        """Write the request up to the body. Raises ValueError for a line break in it."""
        fields = tuple(headers.items())
        correlation = b""
        if fields and fields[-1][0] == "X-Correlation-Id" and fields[-1][1].isalnum():
            correlation = b"X-Correlation-Id: %b\r\n" % fields[-1][1].encode()
            fields = fields[:-1]
        key = (method, target, fields)
        known = self._heads.get(key)
        if known is None:
            if len(self._heads) >= MAX_KNOWN_HEADS:
                self._heads.clear()
            known = self._heads[key] = self._write_head(method, target, fields)
        # The correlation id comes last: that is where it is expected (`framing.Heads`).
        return b"%bContent-Length: %d\r\n%b\r\n" % (known, sum(map(len, body)), correlation)

    def _write_head(self, method: str, target: str, fields: Sequence[tuple[str, str]]) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._address}"]
        lines += [f"{name}: {value}" for name, value in fields]
        for line in lines:
            if "\r" in line or "\n" in line:
                raise ValueError(f"a line break in {line!r}")
        return ("\r\n".join(lines) + "\r\n").encode()


class _Meaning(NamedTuple):
    """What an answer's head means."""

    status: int
    headers: Mapping[str, str]


_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) [ -~]*")
_WITHOUT_BODY: Final = frozenset({204, 304})


def _read_head(head: bytes) -> _Meaning | None:
    line, _, fields = head.partition(b"\r\n")
    match = _STATUS_LINE.fullmatch(line)
    headers = plain_fields(fields)
    if match is None or headers is None or "transfer-encoding" in headers or "upgrade" in headers:
        return None
    status = int(match[1])
    if status in _WITHOUT_BODY or headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    del headers["content-length"]  # The one thing that heads of these bytes do not share.
    return _Meaning(status, headers)


class _Due(NamedTuple):
    """An answer that is due."""

    answer: asyncio.Future[HttpReply]
    deadline: float
    """On the loop's clock."""
    timeout_ms: int


class _Connection(Framed):
    """One connection: writes requests, reads answers, matches them by order."""

    def __init__(
        self, address: Address, loop: asyncio.AbstractEventLoop, heads: Heads[_Meaning], scratch: bytearray
    ) -> None:
        super().__init__(scratch, b"HTTP/1.1 ", reuse_bytes=REUSE_BYTES)
        self._address = address
        self._loop = loop
        self._in_flight: deque[_Due] = deque()
        """The next one first."""
        self._heads = heads
        self._meaning: _Meaning
        """Of the head that came last, as the next."""
        self._parser: _Parser | None = None
        """Set once an answer came that is not plain."""
        self._resumed: asyncio.Future[None] | None = None
        """Set while the socket's write buffer is full."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self.is_closed = False
        """Nothing may be sent on it any more."""
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the socket is gone."""

    @property
    def is_writable(self) -> bool:
        """Whether a request may be sent right now."""
        return not self.is_closed and self._resumed is None

    async def resumed(self) -> None:
        """Wait until more may be written, or the connection is closed."""
        if self._resumed is not None:
            # Shielded: that one waiter is cancelled must not wake another too early.
            await asyncio.shield(self._resumed)

    def send(
        self, head: bytes, body: Sequence[Buffer], *, timeout_ms: int, waited_s: float = 0.0
    ) -> asyncio.Future[HttpReply]:
        """Write a request; the future gets its answer or ConnectionFailed.

        ``waited_s`` of its ``timeout_ms`` have passed.
        """
        answer: asyncio.Future[HttpReply] = self._loop.create_future()
        deadline = self._loop.time() + timeout_ms / 1000 - waited_s
        self._in_flight.append(_Due(answer, deadline, timeout_ms))
        if self._timer is None or deadline < self._timer_due:
            self._ring_at(deadline)
        if body:
            self._transport.writelines((head, *body))
        else:
            self._transport.write(head)
        return answer

    def give_up(self, answer: asyncio.Future[HttpReply]) -> None:
        """Close the connection if ``answer`` is still due: those behind it would wait for it."""
        if any(due.answer is answer for due in self._in_flight):
            self.fail("an earlier request on this connection: the request was given up")

    def fail(self, reason: str) -> None:
        """Close the connection at once and fail all that is in flight."""
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()
        while self._in_flight:
            self._fail(self._in_flight.popleft().answer, reason)
        self.resume_writing()

    def _fail(self, answer: asyncio.Future[HttpReply], reason: str) -> None:
        if not answer.done():
            answer.set_exception(ConnectionFailed(self._address, reason))
            answer.exception()  # Its asker may be cancelled in this very step and never look.

    # One timer for all that is in flight: it rings no later than the first of their deadlines, and
    # an answer that comes in time does not touch it.

    def _ring_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_at(due, self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        self._timer = None
        if not self._in_flight:
            return
        first = min(self._in_flight, key=lambda due: due.deadline)
        if self._loop.time() < first.deadline:
            self._ring_at(first.deadline)
            return
        reason = f"timed out after {first.timeout_ms} ms"
        self._fail(first.answer, reason)
        self.fail(f"an earlier request on this connection: {reason}")

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it.
        sock = transport.get_extra_info("socket")
        if sock is not None:
            # A request is written whole; waiting to merge it with a next one only delays it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def eof_received(self) -> bool:
        self.fail(self._cut_off("closed"))
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.fail(self._cut_off(_say(error) if error is not None else "closed"))
        if not self.lost.done():
            self.lost.set_result(None)

    def _cut_off(self, how: str) -> str:
        how = "the connection was closed" if how == "closed" else how
        parser = self._parser
        is_mid_answer = parser.is_mid_answer if parser is not None else self.is_mid_message
        return f"{how} in the middle of the answer" if is_mid_answer else how

    def pause_writing(self) -> None:
        if self._resumed is None:
            self._resumed = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._resumed is not None:
            self._resumed.set_result(None)
            self._resumed = None

    # The framing calls these.

    def head_received(self, head: bytes) -> int | None:
        found = self._heads.read(head)
        if found is None:
            return None
        self._meaning, size, _ = found
        return size

    def body_received(self, body: memoryview) -> None:
        status, headers = self._meaning
        self.answered(HttpReply(status, (body,) if body else (), headers))

    def raw_received(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = _Parser(self)
        self._parser.feed(data)

    def answered(self, reply: HttpReply) -> None:
        """Hand ``reply`` to whoever it is due to."""
        if self.is_closed:
            return
        if not self._in_flight:
            self.fail("an answer came that nobody asked for")
            return
        answer = self._in_flight.popleft().answer
        if not answer.done():
            answer.set_result(reply)


class _Parser:
    """Reads answers of every form, for servers that are not ours."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self.is_mid_answer = False

    def feed(self, data: bytes) -> None:
        """Read on; what is no HTTP fails the connection."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._connection.fail(f"the answer is not HTTP/1.1: {error}")

    # The parser calls these.

    def on_message_begin(self) -> None:
        self.is_mid_answer = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("utf-8", "surrogateescape")

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        headers, body = self._headers, b"".join(self._body)
        self._headers, self._body, self.is_mid_answer = {}, [], False
        if status < 200:
            return  # An interim answer (100 Continue): the real one follows.
        self._connection.answered(HttpReply(status, (body,) if body else (), headers))
        if not self._parser.should_keep_alive():
            self._connection.fail("the server closed the connection after an earlier answer")


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
