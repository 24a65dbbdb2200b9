"""Replication: who leads a partition, who is in sync, and what may be acknowledged.

The rules live in pure code: :mod:`partition` (roles, the ISR and its changes in flight, the high
watermark, fencing, deposed and frozen leaders) and :mod:`truncation` (where a follower cuts its
log). The shell around them is :mod:`manager` (the requests of clients and of the controller, the
background tasks), :mod:`fetcher` (followers pulling from their leaders) and :mod:`purgatory`
(requests that wait, woken by events, never polling).

What this package leaves to others: files and record validation to :mod:`kafkalite.log`;
ZooKeeper, HTTP and the metadata cache to the server, which hands them in through the protocols
of :mod:`edges`; every decision about leadership to the controller.

Invariants, each checked by tests/property/test_replication.py:

- A record acknowledged with ``acks=all`` is on every member of the ISR, counted both before and
  after any change of it whose outcome is not yet known.
- The high watermark never retreats within one leader epoch, and stands still once the leader
  has learnt that it is deposed.
- Below the high watermark all replicas agree.

Not in this version: incremental fetch sessions (KIP-227; every answer has session id 0, "no
session"), fetching from followers (KIP-392), and replication quotas.
"""
