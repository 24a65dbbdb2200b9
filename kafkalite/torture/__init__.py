"""Torture: break a cluster at random for a while, then show whether it kept its word.

Purpose: `kafkalite torture` lets anyone try to break a cluster, with one command. It starts real
ZooKeepers and real brokers, writes and reads numbered records all the while, and does to the
processes, their disks and their connections what a seed says. At the end everything is healed, every
record is read from the beginning, the replicas' files are compared byte by byte, and
:mod:`kafkalite.checker` judges the history.

- :mod:`.schedule`: which fault, when, for how long; all chance is in there (pure).
- :mod:`.proxy`, :mod:`.links`: every connection between broker and broker, broker and ZooKeeper, client
  and broker passes a proxy of this process, link by link.
- :mod:`.faults`: what each fault does, how it is healed, and how it shows that it took place.
- :mod:`.workload`: producers and consumers that note every invocation and completion.
- :mod:`.replicas`: waiting until all replicas are in sync, and comparing their files.
- :mod:`.run`: one run from beginning to verdict.

Invariant: a fault that had no effect (nothing met it) is not counted as one.
"""
