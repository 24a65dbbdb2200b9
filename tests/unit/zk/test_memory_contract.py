"""The simulated ensemble keeps the contract that the real one is held to."""

import pytest

from kafkalite.edge import SystemClock
from tests.cluster.zookeeper_contract import ZooKeeperContract
from tests.support.zookeeper import reached
from tests.support.zookeeper_memory import MemoryClient, MemoryZooKeeper
from zk.client import SessionState, ZooKeeper


class MemoryHarness:
    """:class:`tests.support.zookeeper.Harness` on the ensemble in memory."""

    def __init__(self) -> None:
        self._server = MemoryZooKeeper(SystemClock())

    async def connect(self, *, session_timeout_ms: int = 6000) -> MemoryClient:
        return await self._server.connect(session_timeout_ms)

    async def expire(self, client: ZooKeeper) -> None:
        self._server.expire(self._own(client))

    async def suspend(self, client: ZooKeeper) -> None:
        self._server.suspend(self._own(client))
        await reached(client, SessionState.SUSPENDED)

    async def resume(self, client: ZooKeeper) -> None:
        self._server.resume(self._own(client))

    def lose_reply(self, client: ZooKeeper) -> None:
        self._server.lose_reply(self._own(client))

    @staticmethod
    def _own(client: ZooKeeper) -> MemoryClient:
        assert isinstance(client, MemoryClient)
        return client


class TestMemoryZooKeeper(ZooKeeperContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()
