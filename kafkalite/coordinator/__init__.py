"""Coordinators: who is in a group, what each member owns, how far the group has come.

The coordinator of a group is the leader of one partition of `__consumer_offsets`, found by the
hash of the group's id. Its state has two parts, kept apart on purpose:

- **What is committed**: offsets, and of each group the last completed generation with its members
  and assignment. It is a function of the partition's records below the high watermark and of
  nothing else: serving and loading apply the same records through the same code
  (:class:`~kafkalite.coordinator.group.shard.Shard`), the last record of a key counts. So a
  coordinator's death loses nothing that was acknowledged, and nobody is shown what could still be
  lost.
- **What is under way**: joins that wait, sessions, a generation whose assignment is not stored
  yet. It dies with the coordinator; its members join again.

Every decision is pure: :mod:`kafkalite.coordinator.group` takes a request and the time and gives
back answers, records to append, and what to write into the journal. When an append is committed,
or fails, that is one more input. :mod:`kafkalite.coordinator.runtime` carries decisions out: it
appends, waits for the high watermark, arms one timer a group, loads and unloads.

What the journal is told (each names the group, and its cause where there is one):

=========================  ========================================================================
`GroupMemberJoined`        member, instance, client, host, and the reason that the client gave
`GroupMemberReplaced`      a static member came back under a new member id; the old one is fenced
`GroupMemberLeft`          it left or was removed, with the reason
`GroupMemberExpired`       it fell silent, did not rejoin, did not sync, or never came
`GroupRebalanceStarted`    why, in which state and generation; its cause is the event before it
`GroupRebalanceCompleted`  generation, how long it took, which partitions moved from whom to whom
`GroupOffsetsExpired`      which, and after how long; `GroupOffsetsDeleted` where it was asked for
`GroupDeleted`             the group and all its offsets
`GroupCoordinatorLoaded`   of a partition: how long it took, how much there is; its cause is what
                           made this broker the leader. `…Unloaded`, `…Failed` with the reason
=========================  ========================================================================

What this package leaves to others: the log and its replication (:mod:`kafkalite.replication`), who
leads what and which topics there are (:class:`~kafkalite.coordinator.edges.ClusterView`, the
server's metadata cache), HTTP (the server's handlers), and the assignment itself, which a group's
own leader makes.
"""
