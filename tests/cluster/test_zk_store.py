"""The typed store on a real ZooKeeper."""

from tests.cluster.zookeeper_store_contract import StoreContract


class TestStoreOnRealZooKeeper(StoreContract):
    """``harness`` comes from the fixtures of this directory."""
