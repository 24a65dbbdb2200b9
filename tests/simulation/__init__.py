"""Whole clusters in one process, under virtual time, from one seed.

The brokers, the controller and the clients are the real code; what they stand on is simulated:
the loop (:mod:`.loop`), the network (:mod:`.network`), ZooKeeper
(:mod:`tests.support.zookeeper_memory`) and the disk (:mod:`tests.support.disk`). All chance comes
from the seed, so one seed is one exact history.
"""
