"""Real ZooKeeper for tests: an ensemble, sessions through a proxy, and ways to break them.

:class:`RealHarness` gives each session a proxy of its own, so that one client's connection can be lost, or
one answer, without touching the others. It has the methods of :class:`Harness`, as the harness of the
simulated ensemble has; the contract suite is written against those.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from kazoo.client import KazooClient

from kafkalite.cluster import zookeeper
from kafkalite.common import Address
from kafkalite.edge import SystemClock
from kafkalite.torture.proxy import Direction, ProxiedConnection, TcpProxy
from tests.support.ensemble import Ensemble, plan_ensemble
from zk.client import SessionState, WatchEvent, ZooKeeper
from zk.session import Session, ZooKeeperConfig, connect

TIMEOUT_S = 30.0
"""How long a test waits for what must happen."""

_WRITES = (1, 2, 5, 14)
"""Opcodes of create, delete, set data, multi."""


def make_ensemble(directory: Path, count: int) -> Ensemble:
    """An ensemble of ``count`` servers, not yet started."""
    installation = zookeeper.find_installation(os.environ)
    return Ensemble(installation, plan_ensemble(directory, count))


@contextlib.asynccontextmanager
async def running_ensemble(directory: Path, count: int) -> AsyncIterator[Ensemble]:
    """A running ensemble whose members can be killed, paused, resumed and restarted."""
    ensemble = make_ensemble(directory, count)
    try:
        await ensemble.start()
        yield ensemble
    finally:
        await ensemble.stop()


class Harness(Protocol):
    """An ensemble, real or simulated, as the contract suite drives it."""

    async def connect(self, *, session_timeout_ms: int = 6000) -> ZooKeeper:
        """A new session."""
        ...

    async def expire(self, client: ZooKeeper) -> None:
        """End the client's session at the servers; the client hears of it as it can."""
        ...

    async def suspend(self, client: ZooKeeper) -> None:
        """Break the client's connection and keep it from coming back. Returns when it noticed."""
        ...

    async def resume(self, client: ZooKeeper) -> None:
        """Let it come back. Returns at once."""
        ...

    def lose_reply(self, client: ZooKeeper) -> None:
        """Apply the client's next write, but break the connection before it is answered."""
        ...


class Told:
    """A callback for watches and states that remembers what it was told and can be waited for."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[str, WatchEvent]] = asyncio.Queue()

    def __call__(self, path: str, event: WatchEvent) -> None:
        self._queue.put_nowait((path, event))

    async def next(self) -> tuple[str, WatchEvent]:
        async with asyncio.timeout(TIMEOUT_S):
            return await self._queue.get()

    @property
    def count(self) -> int:
        """How many are waiting to be taken."""
        return self._queue.qsize()


async def reached(client: ZooKeeper, state: SessionState) -> None:
    """Wait until ``client`` is in ``state``."""
    changed = asyncio.Event()
    client.on_state(lambda _: changed.set())
    async with asyncio.timeout(TIMEOUT_S):
        while client.state is not state:
            changed.clear()
            await changed.wait()


class ZooKeeperProxy(TcpProxy):
    """A proxy that knows where a message of ZooKeeper's protocol ends, and which ones are writes."""

    def __init__(self, target: Address) -> None:
        super().__init__(target)
        self._armed = False
        self._awaited: tuple[ProxiedConnection, int] | None = None
        self.granted_sessions = 0
        """Connect answers that granted a session, new or resumed."""

    def lose_reply(self) -> None:
        """Pass on the next write, wait for its answer, and break the connection instead of giving it."""
        self._armed = True

    def filter(self, connection: ProxiedConnection, direction: Direction, data: bytes) -> bytes:
        buffer = connection.buffers.setdefault(direction, bytearray())
        # The first message each way opens the session and has no header.
        opened = f"{direction.value} opened"
        buffer += data
        passed = bytearray()
        while len(buffer) >= 4 and len(buffer) >= 4 + (size := int.from_bytes(buffer[:4], "big")):
            message = bytes(buffer[: 4 + size])
            del buffer[: 4 + size]
            if opened not in connection.notes:
                connection.notes.add(opened)
                if direction is Direction.TO_CLIENT and int.from_bytes(message[8:12], "big", signed=True) > 0:
                    self.granted_sessions += 1
            elif direction is Direction.TO_SERVER:
                xid, opcode = message[4:8], int.from_bytes(message[8:12], "big", signed=True)
                if self._armed and opcode in _WRITES:
                    self._armed = False
                    self._awaited = connection, int.from_bytes(xid, "big", signed=True)
            elif self._awaited == (connection, int.from_bytes(message[4:8], "big", signed=True)):
                self._awaited = None
                connection.drop()
                return b""
            passed += message
        return bytes(passed)


class RealHarness:
    """Sessions with a real ensemble below ``chroot``, each through a proxy of its own."""

    def __init__(self, servers: str, chroot: str, stack: contextlib.AsyncExitStack) -> None:
        host, _, port = servers.split(",")[0].rpartition(":")
        self._target = Address(host, int(port))
        self._chroot = chroot
        self._stack = stack
        self._proxies: dict[int, ZooKeeperProxy] = {}

    @staticmethod
    @contextlib.asynccontextmanager
    async def open(servers: str, chroot: str) -> AsyncIterator[RealHarness]:
        async with contextlib.AsyncExitStack() as stack:
            yield RealHarness(servers, chroot, stack)

    async def connect(self, *, session_timeout_ms: int = 6000) -> Session:
        proxy = ZooKeeperProxy(self._target)
        await self._stack.enter_async_context(proxy)
        session = await connect(
            ZooKeeperConfig(f"{proxy.address}{self._chroot}", session_timeout_ms=session_timeout_ms),
            SystemClock(),
        )
        self._stack.push_async_callback(session.close)
        self._proxies[id(session)] = proxy
        return session

    def proxy(self, client: ZooKeeper) -> ZooKeeperProxy:
        return self._proxies[id(client)]

    async def expire(self, client: ZooKeeper) -> None:
        assert isinstance(client, Session)
        credentials = (client._client._session_id, client._client._session_passwd)
        # A second client takes the session over and closes it.
        await asyncio.to_thread(_close_session, str(self._target), credentials)

    async def suspend(self, client: ZooKeeper) -> None:
        self.proxy(client).cut()
        await reached(client, SessionState.SUSPENDED)

    async def resume(self, client: ZooKeeper) -> None:
        self.proxy(client).heal()

    def lose_reply(self, client: ZooKeeper) -> None:
        self.proxy(client).lose_reply()


def _close_session(servers: str, credentials: tuple[int, bytes]) -> None:
    other = KazooClient(hosts=servers, client_id=credentials, timeout=6)
    other.start()
    other.stop()
    other.close()
