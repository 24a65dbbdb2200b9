"""Which partitions a rebalance moved, read from the members' assignments.

The coordinator needs none of this to work: assignments are the members' own affair. It is what
`why group` tells people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kafkalite.common import TopicPartition
from kafkalite.protocol.consumer_protocol import PROTOCOL_TYPE, Assignment, MalformedConsumerProtocol

MAX_LISTED: Final = 100
"""Moves that an event lists; it counts them all."""


def owners(protocol_type: str | None, assignments: Mapping[str, bytes]) -> dict[TopicPartition, str] | None:
    """Who owns which partition; None where the assignments are not those of consumers."""
    if protocol_type != PROTOCOL_TYPE:
        return None
    found: dict[TopicPartition, str] = {}
    try:
        for member, assignment in assignments.items():
            found.update(dict.fromkeys(Assignment.decode(assignment).partitions, member))
    except MalformedConsumerProtocol:
        return None
    return found


def moves(before: Mapping[TopicPartition, str], after: Mapping[TopicPartition, str]) -> dict[str, Any]:
    """What changed hands, as facts for the journal: how many, and the first of them."""
    changed = [
        {"topic": topic, "partition": partition, "from": before.get(key), "to": after.get(key)}
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
        for topic, partition in (key,)
    ]
    return {
        "partitions": len(after),
        "partitions_moved": len(changed),
        "moves": changed[:MAX_LISTED],
    }
