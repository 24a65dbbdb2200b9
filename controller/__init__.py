"""The controller: one broker of the cluster decides who leads what, and tells the others.

Every broker runs a :class:`~controller.controller.Controller`. The one whose multi creates
`/controller` and raises `/controller_epoch` reigns; each of its writes checks that epoch's version
in the same multi, so a deposed controller fails instead of overwriting.

::

    watches, timers, answers, API calls
                  |  (only put events into the queue)
                  v
    event_queue -> controller (sessions, elections) -> reign (handles one event at a time)
                                                        |            |
                                   state_machines <-----+            +-> topic_creation, topic_deletion,
                                     |        |                          assignment           (pure)
              election, *_state (pure)        +-> leadership_writer -> ZooKeeper
                                     |
                                     +-> request_batch (pure) -> channel -> brokers

What holds throughout:

- All state (:mod:`controller.context`) is touched by one consumer of one queue, and is a cache:
  ZooKeeper has the truth, and every write names the versions that it builds on.
- A partition's state is written before anybody is told, and its leader epoch grows with every decision.
- A broker that registered after a state's last write has restarted: that state's word on it is void
  (:mod:`controller.election`).
- To each broker requests go in order, one at a time, and are repeated until answered
  (:mod:`controller.channel`).
- Nothing is written or sent without the broker's lease on its session.
- Every change is a journal event that names its cause.

It knows ZooKeeper (:mod:`zk`), the messages and the shared words; never the server, which hands in
the channel to brokers, the lease and the check of topic configs.
"""
