"""What to do next for each topic that is to be deleted.

Deleting takes several rounds: partitions go away, every replica deletes its log and says so, and
only then do the znodes go. A replica that cannot be reached makes its topic ineligible until the
broker is back; then the round starts over. Pure: it looks at the context and says what is next.
"""

from __future__ import annotations

import enum

from controller.context import ControllerContext
from controller.replica_state import ReplicaState


class NextStep(enum.Enum):
    """What a topic to be deleted needs now."""

    COMPLETE = "complete"
    """Every replica has deleted its log: remove the znodes."""
    RETRY = "retry"
    """No deletion under way, and some failed: set those back to offline, then start over."""
    START = "start"
    """Nothing under way: tell the replicas to stop and delete."""
    WAIT = "wait"
    """Answers are due, or the topic is ineligible."""


def next_step(context: ControllerContext, topic: str) -> NextStep:
    """Decide for one topic of ``context.topics_to_delete``."""
    states = [context.replica_state(r) for r in context.replicas_of(context.partitions_of(topic))]
    if all(state is ReplicaState.DELETION_SUCCESSFUL for state in states):
        return NextStep.COMPLETE
    if ReplicaState.DELETION_STARTED in states or topic in context.topics_ineligible_for_deletion:
        return NextStep.WAIT
    if ReplicaState.DELETION_INELIGIBLE in states:
        return NextStep.RETRY
    return NextStep.START


def has_offline_replica(context: ControllerContext, topic: str) -> bool:
    """Tell whether some replica of ``topic`` cannot be told to delete its log."""
    return any(
        not context.is_online(r.broker, r.partition)
        for r in context.replicas_of(context.partitions_of(topic))
    )


def is_being_reassigned(context: ControllerContext, topic: str) -> bool:
    """Tell whether some partition of ``topic`` is on the move."""
    return any(assignment.is_being_reassigned for assignment in context.assignments.get(topic, {}).values())
