"""The rules of consumer groups, without IO: requests, records and the time in, decisions out.

- :mod:`~kafkalite.coordinator.group.state`: the states of a group and their legal moves.
- :mod:`~kafkalite.coordinator.group.records`: what stands in `__consumer_offsets`.
- :mod:`~kafkalite.coordinator.group.effects`: what a decision consists of.
- :mod:`~kafkalite.coordinator.group.group`: one group's members and generations.
- :mod:`~kafkalite.coordinator.group.offsets`: commit, fetch, delete, expire.
- :mod:`~kafkalite.coordinator.group.shard`: the groups of one partition, and its records.
- :mod:`~kafkalite.coordinator.group.explain`: which partitions a rebalance moved.
"""
