"""The configs that the controller honours, under Kafka's names."""

from __future__ import annotations

import msgspec


class ControllerConfig(msgspec.Struct, frozen=True):
    """Attributes are Kafka's names in snake_case, defaults Kafka's unless their line says otherwise."""

    num_partitions: int = 1
    """For a topic created with -1 partitions."""
    default_replication_factor: int = 1
    """For a topic created with a replication factor of -1."""
    unclean_leader_election_enable: bool = False
    """Whether a replica outside the ISR may lead, where the topic's own config does not say."""
    auto_leader_rebalance_enable: bool = True
    leader_imbalance_check_interval_seconds: int = 300
    leader_imbalance_per_broker_percentage: int = 10
    """The share of misplaced leaders, in percent of a broker's preferred partitions, that is let be."""
    controller_socket_timeout_ms: int = 30_000
    """How long one request to a broker may take before it is repeated."""
    delete_topic_enable: bool = True
    inter_broker_listener_name: str = "PLAINTEXT"
    """The listener whose endpoints the controller names as those of live leaders."""
