"""The history checker: did the cluster keep its word?

Drivers write records with unique numbers, read them, and note every invocation and completion
(:mod:`.history`). :class:`~kafkalite.checker.checker.Checker` takes that history event by event, in
the order in which things happened, and names what must not have happened (:mod:`.promise` says what
each acks mode may show). It knows nothing of how the cluster works and asks it nothing, so it judges
simulations, real clusters, and recordings of either. What the members of consumer groups tell is judged
beside it (:mod:`.groups`): who owns what in which generation, what is committed, what was processed.

The names of the anomalies are Jepsen's where Jepsen has one. What it takes for granted: a topic that is
neither compacted nor written to by others, and without transactions, so that offsets have no holes.
"""
