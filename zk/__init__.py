"""ZooKeeper as kafkalite uses it: a session, the znodes, their records, typed reads and writes.

A reader who asks "what does the cluster agree on, and where does it stand?" finds it here:

- :mod:`zk.client` is the interface to one *session*. Everything above it is written against that
  interface, so it runs on the real ensemble and on the simulated one.
- :mod:`zk.session` implements it on kazoo. It is the one module that meets kazoo's threads.
- :mod:`zk.paths` names every znode, :mod:`zk.codecs` turns its data into types and back.
- :mod:`zk.store` reads and writes those types: registration, election, partition states. A
  :class:`~zk.store.FencedStore` puts a check of the controller epoch before every write.
- :mod:`zk.admin` holds the writes that create topics and change configs.
- :mod:`zk.lease` decides how long a broker may act on what it last heard.

Four invariants hold the package together:

1. *One client is one session.* When the session is over every operation of it fails with
   ``SessionExpired``; none is carried over to the next session.
2. *A lost answer means unknown.* A write whose answer was lost is looked up (after a ``sync``)
   before anything else happens; only a write that is certain not to have taken effect is tried again.
3. *What was read is checked where it is used.* Conditional writes name the versions that the
   decision rested on, in one multi with the write.
4. *Nothing falls between a read and its watch*: the read itself sets the watch.

The package knows the shared words (:mod:`kafkalite.common`) and the clock, and nothing else.
"""
