"""A connection on the data path: plain POST requests, served in order, one at a time.

Producing and fetching are many requests of one form, and what HTTP costs them is paid by every
batch of records. So this reads nothing but that form (:mod:`kafkalite.transport.framing`): a body
goes straight into its buffer, a head is understood once, a reply leaves as it lies. Whatever else
comes - a GET, a body in chunks or too large, `Expect`, something that is no HTTP at all - is
handed over to the complete server together with its connection, once what came before it has been
answered.

Invariants: replies leave in the order of their requests; a handler whose connection is lost is
cancelled; what is read ahead of the handler is bounded; a head or body that has begun must go on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple, cast
from urllib.parse import parse_qs, unquote

from kafkalite.edge import Buffer, Handler, HttpReply, HttpRequest
from kafkalite.protocol.errors import ErrorCode
from kafkalite.transport.framing import SCRATCH_BYTES, Framed, Heads, plain_fields

_logger = logging.getLogger(__name__)

JOIN_BELOW_BYTES: Final = 64 * 1024
"""Replies up to this size are joined into one buffer: the copy costs less than further writes."""
READ_AHEAD_BYTES: Final = 1 << 20
"""Reading pauses while requests of more than this wait for the handler."""
WRITE_BUFFER_BYTES: Final = 1 << 20
"""The next request waits while more than this of earlier replies has not left."""
LINGER_S: Final = 2.0
"""What still comes after a refusal is read and dropped for so long: closing at once would reset the
connection, and the client might never see why."""
MAX_KNOWN_REPLY_HEADS: Final = 256

_WEIGHT_OF_REQUEST: Final = 1024
"""What a request that waits counts besides its body."""
_NO_QUERY: Final[Mapping[str, Sequence[str]]] = {}
_REQUEST_LINE: Final = re.compile(rb"POST (/[!-~]*) HTTP/1\.1")
_CHANGES_THE_CONNECTION: Final = frozenset({"transfer-encoding", "expect", "upgrade", "te", "trailer"})


class _Target(NamedTuple):
    """What a request's head means."""

    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    correlation_id: str | None
    """One that is no number, and so a part of this head."""


def _read_head(head: bytes) -> _Target | None:
    line, _, fields = head.partition(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    headers = plain_fields(fields)
    if match is None or headers is None or not _CHANGES_THE_CONNECTION.isdisjoint(headers):
        return None
    if "host" not in headers or headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    del headers["content-length"]  # The one thing that heads of these bytes do not share.
    path, query = split_target(match[1].decode("ascii"))
    return _Target(path, query, headers, headers.pop("x-correlation-id", None))


def split_target(target: str) -> tuple[str, Mapping[str, Sequence[str]]]:
    """Take a request's target apart into its path and its query parameters, both decoded."""
    path, _, query = target.partition("?")
    return (
        unquote(path) if "%" in path else path,
        parse_qs(query, keep_blank_values=True) if query else _NO_QUERY,
    )


def refusal_body(message: str, code: ErrorCode) -> bytes:
    """The body of an answer in the protocol's words to what never reached the handler."""
    return json.dumps(
        {"error_code": int(code), "error": code.name, "field": None, "message": message}
    ).encode()


def peer_name(transport: asyncio.BaseTransport | None) -> str:
    """The other side's address, for logs."""
    name = transport.get_extra_info("peername") if transport is not None else None
    return f"{name[0]}:{name[1]}" if name else ""


class Service:
    """What all connections of one listener share."""

    def __init__(
        self,
        listener: str,
        handler: Handler,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
        idle_s: float,
        complete: Callable[[], asyncio.Protocol],
    ) -> None:
        """``complete`` makes the protocol that takes over a connection with more than plain requests."""
        self.listener = listener
        self.handler = handler
        self.max_body_bytes = max_body_bytes
        self.body_timeout_s = body_timeout_s
        self.idle_s = idle_s
        self.complete = complete
        self.heads = Heads(_read_head)
        self.scratch = bytearray(SCRATCH_BYTES)
        self.connections: dict[Connection, None] = {}
        """Those that have not been handed over."""
        self._reply_heads: dict[tuple[int, tuple[tuple[str, str], ...]], bytes] = {}

    def connect(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self)

    async def close(self) -> None:
        """End all connections; their handlers are cancelled and have ended when this returns."""
        while self.connections:
            tasks = [connection.close() for connection in list(self.connections)]
            await asyncio.wait(tasks)

    def reply_head(self, reply: HttpReply, framing: bytes) -> bytes:
        """The head of ``reply``; ``framing`` is the field that says where its body ends.

        Raises ValueError for a line break in it.
        """
        key = (reply.status, tuple(reply.headers.items()))
        known = self._reply_heads.get(key)
        if known is None:
            if len(self._reply_heads) >= MAX_KNOWN_REPLY_HEADS:
                self._reply_heads.clear()
            known = self._reply_heads[key] = _write_head(*key)
        correlation_id = reply.correlation_id
        if correlation_id is None:
            return b"%b%b\r\n\r\n" % (known, framing)
        # It comes last: that is where it is expected (`framing.Heads`).
        field = _write_lines([f"X-Correlation-Id: {correlation_id}"])
        return b"%b%b\r\n%b\r\n" % (known, framing, field)


def _write_head(status: int, fields: Sequence[tuple[str, str]]) -> bytes:
    """Write the status and ``fields``. Raises ValueError for a line break in them."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Server: kafkalite"]
    return _write_lines(lines + [f"{name}: {value}" for name, value in fields])


def _write_lines(lines: Sequence[str]) -> bytes:
    for line in lines:
        if "\r" in line or "\n" in line:
            raise ValueError(f"a line break in {line!r}")
    return ("\r\n".join(lines) + "\r\n").encode()


class Connection(Framed):
    """See the module."""

    def __init__(self, service: Service) -> None:
        super().__init__(service.scratch, b"POST ")
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._descriptor = -1
        """Of the connection's socket, while it is open; connections here are not encrypted."""
        self._task: asyncio.Task[None]
        self._target: _Target
        """Of the head that came last, as the next."""
        self._correlation_id: str | None = None
        self._peer = ""
        self._waiting: deque[HttpRequest] = deque()
        """Requests that are complete and not yet taken by the handler."""
        self._waiting_weight = 0
        self._rest: bytes | None = None
        """What came from the first head on that was not plain."""
        self._more: asyncio.Future[None] | None = None
        """Set while nothing is there to be served."""
        self._writable: asyncio.Future[None] | None = None
        """Set while the write buffer is full."""
        self._is_reading_paused = False
        self._is_refused = False
        """Set once nothing is served any more and what comes is dropped."""
        self._since = 0.0
        """When what is waited for began to be waited for: the first byte, or the rest of a message."""
        self._has_head_begun = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0

    # --- The loop calls these --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it.
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._descriptor = connected.fileno()
        self._peer = peer_name(transport)
        self._service.connections[self] = None
        self._task = self._loop.create_task(self._serve(), name=f"connection-{self._peer}")

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    def close(self) -> asyncio.Task[None]:
        """Drop the connection and cancel what is served on it; the task that is over then."""
        self._end()
        self._transport.abort()
        return self._task

    def _end(self) -> None:
        if self not in self._service.connections:
            return  # Already over: a handler that is being cancelled must not be cancelled again.
        self._leave_service()
        self._task.cancel()

    def _leave_service(self) -> None:
        self._descriptor = -1  # The number may soon be somebody else's.
        del self._service.connections[self]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- What is received ------------------------------------------------------------------------

    def head_received(self, head: bytes) -> int | None:
        found = self._service.heads.read(head)
        if found is None:
            return None
        self._target, size, self._correlation_id = found
        return size if size <= self._service.max_body_bytes else None

    def body_received(self, body: memoryview) -> None:
        if self._is_refused:
            return
        self._has_head_begun = False
        path, query, headers, correlation_id = self._target
        service = self._service
        if self._correlation_id is not None:
            correlation_id = self._correlation_id
        self._waiting.append(
            HttpRequest("POST", path, query, headers, body, service.listener, self._peer, correlation_id)
        )
        self._waiting_weight += len(body) + _WEIGHT_OF_REQUEST
        if self._more is not None:
            self._wake()
        elif self._waiting_weight > READ_AHEAD_BYTES:
            self._pause_reading()

    def raw_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._rest = data if self._rest is None else self._rest + data
        self._pause_reading()
        self._wake()

    def partly_received(self) -> None:
        if self._is_refused:
            return
        # Each byte of a body is progress; a head, which is small, must come within its time.
        if self.is_mid_body or not self._has_head_begun:
            self._since = self._loop.time()
        self._has_head_begun = self.is_mid_head
        self._expect_within(self._service.body_timeout_s)

    def _pause_reading(self) -> None:
        if not self._is_reading_paused:
            self._is_reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_reading_paused:
            self._is_reading_paused = False
            self._transport.resume_reading()

    def _wake(self) -> None:
        if self._more is not None:
            if not self._more.done():
                self._more.set_result(None)
            self._more = None

    # --- Time ------------------------------------------------------------------------------------

    def _expect_within(self, limit_s: float) -> None:
        """Have the connection looked at when what is waited for is ``limit_s`` late.

        A timer that is set already and rings no later will do: it then looks at what is true.
        """
        due = self._since + limit_s
        if self._timer is None or due < self._timer_due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = due
            self._timer = self._loop.call_at(due, self._look_at_time)

    @property
    def _patience_s(self) -> float:
        return self._service.body_timeout_s if self.is_mid_message else self._service.idle_s

    def _look_at_time(self) -> None:
        self._timer = None
        if self._more is None:
            return  # Something is being served; what is waited for after it begins anew.
        limit_s = self._patience_s
        if self._loop.time() < self._since + limit_s:
            self._expect_within(limit_s)
        elif self.is_mid_message:
            self._refuse(408, f"no further byte came for {limit_s:g} s", ErrorCode.INVALID_REQUEST)
        else:
            self._transport.close()

    # --- Serving ---------------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            while True:
                if self._waiting:
                    await self._serve_one(self._waiting.popleft())
                elif self._rest is None:
                    self._since = self._loop.time()
                    self._more = self._loop.create_future()
                    self._expect_within(self._patience_s)
                    await self._more
                else:
                    self._hand_over(self._rest)
                    return
        except asyncio.CancelledError:
            # Also where only the handler was cancelled: nobody would be answered any more.
            self._transport.abort()
            raise
        except Exception as error:
            _logger.error("a request failed outside its handler", exc_info=error)
            self._refuse(500, type(error).__name__, ErrorCode.UNKNOWN_SERVER_ERROR)

    async def _serve_one(self, request: HttpRequest) -> None:
        self._waiting_weight -= len(request.body) + _WEIGHT_OF_REQUEST
        if self._rest is None and self._waiting_weight <= READ_AHEAD_BYTES:
            self._resume_reading()
        reply = await self._service.handler(request)
        if reply.stream is not None:
            await self._send_stream(reply)
        else:
            self._send(reply)
        if self._writable is not None:
            await self._writable

    def _send(self, reply: HttpReply) -> None:
        body = reply.body
        size = sum(map(len, body))  # Of memoryviews too: records are bytes.
        head = self._service.reply_head(reply, b"Content-Length: %d" % size)
        if size <= JOIN_BELOW_BYTES:
            self._send_now(b"".join((head, *body)))
        else:
            self._transport.writelines(coalesced((head, *body)))

    def _send_now(self, data: bytes) -> None:
        """Hand ``data`` to the kernel in this very step, as far as it takes it.

        A transport may keep small writes until the end of the loop's turn. By then this process may
        have been stopped: an acknowledgement whose lease was looked at just now would leave it long
        after the lease has run out (DESIGN: checked in the step that sends).
        """
        sent = 0
        if self._descriptor >= 0 and self._transport.get_write_buffer_size() == 0:
            try:
                sent = os.write(self._descriptor, data)
            except OSError:
                sent = 0  # Full, or lost: the transport waits, or finds out.
        if sent < len(data):
            self._transport.write(data[sent:])

    async def _send_stream(self, reply: HttpReply) -> None:
        assert reply.stream is not None
        self._transport.write(self._service.reply_head(reply, b"Transfer-Encoding: chunked"))

        async def write(data: bytes) -> None:
            if data:  # An empty chunk would be the end.
                self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            if self._writable is not None:
                await self._writable

        await reply.stream(write)
        self._transport.write(b"0\r\n\r\n")

    def _refuse(self, status: int, message: str, code: ErrorCode) -> None:
        """Answer in the protocol's words and close: what follows cannot be told from what was refused."""
        self._send(
            HttpReply(
                status,
                (refusal_body(message, code),),
                {"Content-Type": "application/json", "Connection": "close"},
            )
        )
        self._is_refused = True
        self._waiting.clear()
        self._resume_reading()
        self._transport.write_eof()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(LINGER_S, self._transport.abort)

    def _hand_over(self, rest: bytes) -> None:
        """Leave the connection to the complete server, which begins with ``rest``."""
        self._leave_service()
        transport, protocol = self._transport, self._service.complete()
        transport.set_write_buffer_limits()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(rest)
        # Only reading begun anew asks the new protocol where to put what comes.
        self._resume_reading()


def coalesced(pieces: Sequence[Buffer]) -> list[Buffer]:
    """Join neighbours that are small; leave large pieces as they lie."""
    joined: list[Buffer] = []
    small: list[Buffer] = []
    small_bytes = 0
    for piece in pieces:
        size = len(piece)
        if size > JOIN_BELOW_BYTES or small_bytes + size > JOIN_BELOW_BYTES:
            if small:
                joined.append(b"".join(small))
                small, small_bytes = [], 0
            if size > JOIN_BELOW_BYTES:
                joined.append(piece)
                continue
        small.append(piece)
        small_bytes += size
    if small:
        joined.append(b"".join(small))
    return joined
