"""What the journals of all brokers must not say, whatever the clients saw: two rulers in one epoch."""

from __future__ import annotations

from kafkalite.common import TopicPartition
from kafkalite.why import History


def two_rulers(history: History, *topics: str) -> list[tuple[TopicPartition | None, str]]:
    """Leader epochs of ``topics`` with two leaders, and controller epochs with two controllers."""
    leaders: dict[tuple[TopicPartition, int], int] = {}
    controllers: dict[int, int] = {}
    found: list[tuple[TopicPartition | None, str]] = []
    for event in history.events:
        if event.type == "BecameLeader" and event.topic in topics and event.partition is not None:
            partition, epoch = TopicPartition(event.topic, event.partition), event.facts["leader_epoch"]
            first = leaders.setdefault((partition, epoch), event.broker)
            if first != event.broker:
                found.append(
                    (
                        partition,
                        f"two leaders: brokers {first} and {event.broker} both led {partition} in leader "
                        f"epoch {epoch}",
                    )
                )
        elif event.type == "ControllerElected":
            epoch = event.facts["controller_epoch"]
            first = controllers.setdefault(epoch, event.broker)
            if first != event.broker:
                found.append(
                    (None, f"two controllers: brokers {first} and {event.broker} in controller epoch {epoch}")
                )
    return found
