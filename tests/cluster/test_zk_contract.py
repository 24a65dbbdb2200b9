"""The real session keeps the contract."""

from tests.cluster.zookeeper_contract import ZooKeeperContract


class TestRealZooKeeper(ZooKeeperContract):
    """``harness`` comes from the fixtures of this directory."""
