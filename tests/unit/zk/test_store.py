"""The typed store on the simulated ensemble."""

import pytest

from tests.cluster.zookeeper_store_contract import StoreContract
from tests.unit.zk.test_memory_contract import MemoryHarness


class TestStoreInMemory(StoreContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()
