"""The floor under a record's latency: its messages between the same processes, with nothing behind them.

A leader, two followers and a client that writes and reads. A record is a request to the leader, its answers
to the followers' requests, their next ones, the acknowledgement, the answer to the reader's request, and its
next one. Here each is some bytes that mean nothing, on the event loop of brokers and clients: what that takes
are sockets, the loop and the machine, and what a record takes beyond it is the work of brokers and clients.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final, cast

import msgspec

from kafkalite.perf.latencies import Latencies, Summary
from kafkalite.perf.machine import cpu_s
from kafkalite.perf.runner import RunFailed

_FOLLOWERS: Final = 2
_MESSAGE_BYTES: Final = 300
"""About what a request with one record of 100 bytes has, its head included."""
_WARM_UP: Final = 500
_PATIENCE_S: Final = 60.0
_WRITE, _READ, _FOLLOW = b"W", b"R", b"F"


class Floor(msgspec.Struct, frozen=True):
    """What was measured."""

    latency_ms: Summary
    brokers_cpu_ms: float
    """A record, of the leader and its followers together."""
    client_cpu_ms: float
    """A record."""


def measure(records: int) -> Floor:
    """Pass ``records`` records, one after the other. Raises RunFailed."""
    spawning = multiprocessing.get_context("spawn")
    heard, told = spawning.Pipe(duplex=False)
    started: list[SpawnProcess] = []

    def start(work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        started.append(spawning.Process(target=_run, args=(work, *arguments), daemon=True))
        started[-1].start()

    def brokers_cpu_s() -> float:
        return sum(cpu_s(process.pid or 0) for process in started[: 1 + _FOLLOWERS])

    def hear() -> Any:
        if not heard.poll(_PATIENCE_S):
            raise RunFailed(f"nothing came from the floor's processes for {_PATIENCE_S:g} s")
        return heard.recv()

    try:
        start(_lead, told)
        port = hear()
        for _ in range(_FOLLOWERS):
            start(_follow, port)
        hear()  # Both have asked.
        start(_write_and_read, port, records, told)
        hear()  # The warm-up is over.
        before = brokers_cpu_s()
        summary, client_cpu_s = hear()
        spent = brokers_cpu_s() - before
    finally:
        for process in started:
            process.kill()
            process.join()
        heard.close()
        told.close()
    return Floor(summary, spent / records * 1000, client_cpu_s / records * 1000)


def _run(work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
    import uvloop

    uvloop.run(work(*arguments))


class _Endpoint(asyncio.Protocol):
    """One end of a connection, on which one message at a time is under way; its first byte says its kind."""

    def __init__(self, on_message: Callable[[_Endpoint, bytes], None]) -> None:
        self._on_message = on_message
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it.

    def data_received(self, data: bytes) -> None:
        self._on_message(self, data[:1])

    def send(self, kind: bytes) -> None:
        self._transport.write(kind.ljust(_MESSAGE_BYTES))


async def _connect(port: int, on_message: Callable[[_Endpoint, bytes], None]) -> _Endpoint:
    loop = asyncio.get_running_loop()
    _, endpoint = await loop.create_connection(lambda: _Endpoint(on_message), "127.0.0.1", port)
    return endpoint


async def _lead(told: Connection) -> None:
    waiting: list[_Endpoint] = []
    """Followers whose request is not answered: they have everything that was written before it."""
    clients: dict[bytes, _Endpoint] = {}

    def on_message(endpoint: _Endpoint, kind: bytes) -> None:
        if kind == _FOLLOW:
            waiting.append(endpoint)
        else:
            clients[kind] = endpoint
        if len(waiting) < _FOLLOWERS:
            return
        if kind == _WRITE:
            for follower in waiting:
                follower.send(_FOLLOW)
            waiting.clear()
        elif kind == _FOLLOW and _WRITE in clients:
            for client in clients.values():
                client.send(_WRITE)
        elif kind == _FOLLOW:
            told.send("both have asked")

    server = await asyncio.get_running_loop().create_server(lambda: _Endpoint(on_message), "127.0.0.1", 0)
    told.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _follow(port: int) -> None:
    leader = await _connect(port, lambda leader, kind: leader.send(_FOLLOW))
    leader.send(_FOLLOW)
    await asyncio.get_running_loop().create_future()  # Until it is killed.


async def _write_and_read(port: int, records: int, told: Connection) -> None:
    clock = time.perf_counter
    latencies = Latencies()
    sent_at = began = 0.0
    left = _WARM_UP + records
    done = asyncio.get_running_loop().create_future()

    def write() -> None:
        nonlocal sent_at
        sent_at = clock()
        writer.send(_WRITE)

    def on_record(reader: _Endpoint, kind: bytes) -> None:
        nonlocal left, began
        now = clock()
        reader.send(_READ)
        left -= 1
        if left < records:
            latencies.add((now - sent_at) * 1000)
        elif left == records:
            told.send("warm")
            began = time.process_time()
        if left:
            write()
        else:
            done.set_result(None)

    reader = await _connect(port, on_record)
    reader.send(_READ)
    writer = await _connect(port, lambda writer, kind: None)
    write()
    await done
    told.send((latencies.summary(), time.process_time() - began))
