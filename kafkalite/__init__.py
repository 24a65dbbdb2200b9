"""kafkalite: ZooKeeper-era Kafka in Python. See docs/architecture.md for the map."""
