"""A server of bytes, and a client that sends it exactly the bytes that a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kafkalite.edge import Handler
from kafkalite.server.http import HttpListening, HttpNetwork


@asynccontextmanager
async def serving(
    handler: Handler, *, max_body_bytes: int, body_timeout_ms: int = 30_000
) -> AsyncIterator[HttpListening]:
    """Serve ``handler`` on a port of its own."""
    listening = await HttpNetwork(body_timeout_ms=body_timeout_ms).listen(
        "127.0.0.1", 0, listener="INTERNAL", handler=handler, max_body_bytes=max_body_bytes
    )
    try:
        yield listening
    finally:
        await listening.close()


class RawClient:
    """A connection to such a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, listening: HttpListening) -> RawClient:
        return cls(*await asyncio.open_connection("127.0.0.1", listening.port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (in lower case) and body of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split()[1]), headers, body

    async def refusal(self) -> tuple[int, dict[str, Any]]:
        """Status and body of an answer that says why, after which the connection ends."""
        status, headers, body = await self.answer()
        assert headers["content-type"] == "application/json"
        assert headers.get("connection", "close") == "close"
        return status, json.loads(body)


def post(body: bytes, *, path: str = "/v1/x", extra: str = "") -> bytes:
    """A plain POST, ``extra`` header lines (CR LF at the end of each) last."""
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body
