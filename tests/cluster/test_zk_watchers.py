"""Watching for good, on a real ZooKeeper."""

from tests.cluster.zookeeper_watchers_contract import WatchersContract


class TestWatchersOnRealZooKeeper(WatchersContract):
    """``harness`` comes from the fixtures of this directory."""
