"""Metrics of the groups coordinated here, computed when somebody scrapes.

The lag of a group in a partition is the high watermark less the committed offset. The group's
coordinator knows the second, and the first where it has a replica of the partition; of the others no
lag appears. `kafka-consumer-groups --describe` asks the leaders and knows them all.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from kafkalite.coordinator.runtime import GroupCoordinator


def families(groups: GroupCoordinator) -> Iterator[Metric]:
    """Lag by group and partition, members by group, and what the coordinator has done so far."""
    lag = GaugeMetricFamily(
        "kafkalite_group_lag",
        "Records a group is behind, in partitions of which its coordinator has a replica",
        labels=["group", "topic", "partition"],
    )
    for group_id, (topic, partition), records in groups.lags():
        lag.add_metric([group_id, topic, str(partition)], records)
    yield lag
    members = GaugeMetricFamily("kafkalite_group_members", "Members of a group", labels=["group"])
    for group_id, count in groups.members().items():
        members.add_metric([group_id], count)
    yield members
    yield CounterMetricFamily(
        "kafka_server_group_coordinator_metrics_group_completed_rebalance_count",
        "Generations completed by groups coordinated here",
        value=groups.rebalances_total,
    )
    yield CounterMetricFamily(
        "kafka_server_group_coordinator_metrics_offset_commit_count",
        "Offsets committed to groups coordinated here",
        value=groups.commits_total,
    )
    yield CounterMetricFamily(
        "kafka_server_group_coordinator_metrics_offset_expiration_count",
        "Offsets of groups coordinated here that expired",
        value=groups.expired_total,
    )
