"""The broker's side of HTTP: listeners, and the complete server behind them.

A connection begins with the reader of plain requests, which is all that the data path needs
(:mod:`kafkalite.server.connection`). The first request that is not of that form moves the connection
over to aiohttp, which serves browsers, `curl`, streams of events, bodies in chunks, and says what is
wrong with what is no HTTP. A handler gets an :class:`~kafkalite.edge.HttpRequest` from either and
answers with buffers: it cannot tell them apart.

Invariants: a body is never held beyond ``max_body_bytes``; a handler whose connection is lost is
cancelled; a request is never decompressed on behalf of the sender, so that a few bytes cannot
become many. One connection is served one request at a time, in order; requests sent ahead on it
(pipelining) wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import ClientConnectionResetError, web
from aiohttp.web_protocol import RequestHandler

from kafkalite.edge import Handler, HttpReply, HttpRequest
from kafkalite.protocol.errors import ErrorCode
from kafkalite.server.connection import Service, peer_name, refusal_body, split_target

_logger = logging.getLogger(__name__)

READ_BUFFER_BYTES: Final = 1 << 20
_NO_BODY: Final = memoryview(b"")


class _BodyTooLarge(Exception):
    """The body is over the limit, or says that it will be."""


class _BodyStalled(Exception):
    """The rest of the body did not come in time."""


class HttpNetwork:
    """Listeners on sockets (:class:`kafkalite.edge.Network`).

    ``idle_ms`` is how long a connection without a request is kept (`connections.max.idle.ms`),
    ``backlog`` how many connections may wait to be accepted (`socket.listen.backlog.size`), and
    ``body_timeout_ms`` how long a started body may pause before the request is given up.
    """

    def __init__(self, *, idle_ms: int = 600_000, backlog: int = 50, body_timeout_ms: int = 30_000) -> None:
        self._idle_s = idle_ms / 1000
        self._backlog = backlog
        self._body_timeout_s = body_timeout_ms / 1000

    async def listen(
        self, host: str, port: int, *, listener: str, handler: Handler, max_body_bytes: int
    ) -> HttpListening:
        """Serve HTTP/1.1 on ``host:port``; an empty host means every interface.

        Raises OSError where that cannot be bound.
        """
        listening = HttpListening(listener, handler, max_body_bytes, self._body_timeout_s, self._idle_s)
        await listening.bind(host, port, self._backlog)
        return listening


class HttpListening:
    """One bound listener and the connections accepted on it."""

    def __init__(
        self, listener: str, handler: Handler, max_body_bytes: int, body_timeout_s: float, idle_s: float
    ) -> None:
        self._listener = listener
        self._handler = handler
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._running: dict[asyncio.Task[Any], None] = {}
        """The tasks inside a handler that aiohttp called, in the order in which they began."""
        self._complete = _Server(
            self._serve,
            handler_cancellation=True,
            keepalive_timeout=idle_s,
            access_log=None,
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,
            # What is left of a refused body is read and dropped this long: closing at once
            # would reset the connection, and the client would never see why.
            lingering_time=2.0,
        )
        self._service = Service(
            listener,
            handler,
            max_body_bytes=max_body_bytes,
            body_timeout_s=body_timeout_s,
            idle_s=idle_s,
            complete=self._complete,
        )
        self._server: asyncio.Server
        self._port = 0

    async def bind(self, host: str, port: int, backlog: int) -> None:
        """Start accepting. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._service.connect, host or None, port, backlog=backlog)
        self._port = self._server.sockets[0].getsockname()[1]

    @property
    def port(self) -> int:
        """The port that was bound."""
        return self._port

    async def close(self) -> None:
        """Stop accepting, cancel the handlers that run, drop the connections."""
        self._server.close()
        await self._service.close()
        while running := list(self._running):
            for task in running:
                task.cancel()
            await asyncio.wait(running)
        # By now the handlers were cancelled; what is left only drains refused bodies.
        await self._complete.shutdown(timeout=0.05)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = None
        try:
            return await self._answer(request)
        finally:
            del self._running[task]

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await self._read_body(request)
        except _BodyTooLarge:
            why = f"the body is over socket.request.max.bytes ({self._max_body_bytes})"
            return _refusal(413, why, request)
        except _BodyStalled:
            return _refusal(408, f"no further byte of the body came for {self._body_timeout_s:g} s", request)
        except web.RequestPayloadError as error:
            return _refusal(400, f"bad body: {error}", request)
        except ConnectionError:
            return web.Response()  # The client left in the middle of its body; nobody waits for this.
        path, query = split_target(request.raw_path)
        headers = {name.lower(): value for name, value in request.headers.items()}
        correlation_id = headers.pop("x-correlation-id", None)
        reply = await self._handler(
            HttpRequest(
                method=request.method,
                path=path,
                query=query,
                headers=headers,
                body=body,
                listener=self._listener,
                peer=peer_name(request.transport),
                correlation_id=correlation_id,
            )
        )
        try:
            return await _send(request, reply)
        except ClientConnectionResetError:
            # The client left while the answer was on its way; there is nobody to tell.
            return web.Response()

    async def _read_body(self, request: web.BaseRequest) -> memoryview:
        """Read the whole body. Raises before more than the limit is held."""
        if not request.body_exists:
            return _NO_BODY
        announced = request.content_length
        limit = self._max_body_bytes
        if announced is not None and announced > limit:
            raise _BodyTooLarge
        if request.headers.get("Expect", "").lower() == "100-continue":
            transport = request.transport
            if transport is not None:
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        content = request.content
        first = content.read_nowait() if announced is not None else b""
        if len(first) == announced:
            return memoryview(first)  # It came in one piece: nothing to gather, nothing to copy.
        pieces, size = [first], len(first)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._body_timeout_s) as patience:
                while not content.at_eof():
                    chunk = await content.readany()
                    size += len(chunk)
                    if size > limit:
                        raise _BodyTooLarge
                    pieces.append(chunk)
                    patience.reschedule(loop.time() + self._body_timeout_s)
        except TimeoutError:
            raise _BodyStalled from None
        return memoryview(b"".join(pieces))  # Copied once; a buffer that grows is copied again and again.


class _Server(web.Server):
    """Makes connections that answer in the protocol's words even what is not HTTP."""

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is not HTTP (400), or one whose handler failed (500)."""
        if status == 400:
            # aiohttp's text quotes the bytes over several lines; the first one says what is wrong.
            why = (message or "").strip().splitlines()
            return _refusal(400, why[0] if why else "not HTTP/1.1")
        _logger.error("a request failed outside its handler", exc_info=exc)
        kind = type(exc).__name__ if exc is not None else "the server failed"
        return _refusal(500, kind, code=ErrorCode.UNKNOWN_SERVER_ERROR)


async def _send(request: web.BaseRequest, reply: HttpReply) -> web.StreamResponse:
    headers = _headers(reply.headers, reply.correlation_id)
    if reply.stream is None:
        return web.Response(status=reply.status, headers=headers, body=b"".join(reply.body))
    streaming = web.StreamResponse(status=reply.status, headers=headers)
    await streaming.prepare(request)
    await reply.stream(streaming.write)
    await streaming.write_eof()
    return streaming


def _headers(headers: Mapping[str, str], correlation_id: str | None) -> dict[str, str]:
    echoed = {} if correlation_id is None else {"X-Correlation-Id": correlation_id}
    return {"Server": "kafkalite", **headers, **echoed}


def _refusal(
    status: int,
    message: str,
    request: web.BaseRequest | None = None,
    *,
    code: ErrorCode = ErrorCode.INVALID_REQUEST,
) -> web.Response:
    """An answer in the protocol's words, after which the connection is closed.

    What else the client sent on it cannot be told from the rest of what was refused.
    """
    correlation_id = request.headers.get("X-Correlation-Id") if request is not None else None
    headers = _headers({"Content-Type": "application/json"}, correlation_id)
    response = web.Response(status=status, headers=headers, body=refusal_body(message, code))
    response.force_close()
    return response
