"""Watching for good, on the simulated ensemble."""

import pytest

from tests.cluster.zookeeper_watchers_contract import WatchersContract
from tests.unit.zk.test_memory_contract import MemoryHarness


class TestWatchersInMemory(WatchersContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()
