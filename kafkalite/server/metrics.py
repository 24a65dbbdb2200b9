"""A broker's metrics: what an operator of Kafka looks at first, under names they recognise.

A name is Kafka's MBean spelled the way the Prometheus JMX exporter spells it:
`kafka.server:type=ReplicaManager,name=UnderReplicatedPartitions` is
`kafka_server_ReplicaManager_UnderReplicatedPartitions`. Kafka's `…PerSec` meters are counters with
`_total` at the end: Prometheus computes the rate.

The hot path only adds to plain numbers; families are built when somebody scrapes, and gauges are
read through callbacks at that moment, so that a gauge can never be stale. There is one
:class:`BrokerMetrics` a broker and no global registry: a simulation runs several in one process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kafkalite.journal import Event
from kafkalite.replication.replica import TopicCounters

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class MBean(NamedTuple):
    """Where Kafka keeps a metric, and what it says."""

    domain: str
    type: str
    help: str


_GAUGES = {
    "UnderReplicatedPartitions": MBean(
        "kafka.server", "ReplicaManager", "Partitions led here with fewer in-sync than assigned replicas"
    ),
    "UnderMinIsrPartitionCount": MBean(
        "kafka.server", "ReplicaManager", "Partitions led here whose ISR is below min.insync.replicas"
    ),
    "AtMinIsrPartitionCount": MBean(
        "kafka.server", "ReplicaManager", "Partitions led here whose ISR is exactly min.insync.replicas"
    ),
    "OfflineReplicaCount": MBean(
        "kafka.server", "ReplicaManager", "Replicas of this broker in a failed log directory"
    ),
    "LeaderCount": MBean("kafka.server", "ReplicaManager", "Partitions led here"),
    "PartitionCount": MBean("kafka.server", "ReplicaManager", "Partitions with a replica here"),
    "FailedPartitionsCount": MBean(
        "kafka.server", "ReplicaFetcherManager", "Followed partitions whose replication stopped on an error"
    ),
    "MaxLag": MBean("kafka.server", "ReplicaFetcherManager", "Records that the furthest follower is behind"),
    "BrokerState": MBean(
        "kafka.server",
        "KafkaServer",
        "0 not running, 1 starting, 2 recovery, 3 running, 6 controlled shutdown, 7 shutting down",
    ),
    "ActiveControllerCount": MBean(
        "kafka.controller", "KafkaController", "1 on the broker that is the controller, else 0"
    ),
    "OfflinePartitionsCount": MBean(
        "kafka.controller", "KafkaController", "Partitions without a leader, as the controller sees them"
    ),
    "PreferredReplicaImbalanceCount": MBean(
        "kafka.controller", "KafkaController", "Partitions led by another than their preferred replica"
    ),
    "GlobalTopicCount": MBean("kafka.controller", "KafkaController", "Topics, as the controller sees them"),
    "GlobalPartitionCount": MBean(
        "kafka.controller", "KafkaController", "Partitions, as the controller sees them"
    ),
    "TopicsToDeleteCount": MBean("kafka.controller", "KafkaController", "Topics waiting to be deleted"),
    "TopicsIneligibleToDeleteCount": MBean(
        "kafka.controller", "KafkaController", "Topics whose deletion waits for an absent replica"
    ),
    "ActiveBrokerCount": MBean(
        "kafka.controller", "KafkaController", "Live brokers, as the controller sees them"
    ),
    "FencedBrokerCount": MBean("kafka.controller", "KafkaController", "Always 0 with ZooKeeper"),
    "EventQueueSize": MBean(
        "kafka.controller", "ControllerEventManager", "Events that wait for the controller"
    ),
    "TotalQueueSize": MBean(
        "kafka.controller", "ControllerChannelManager", "Requests that wait to be sent to brokers"
    ),
    "OfflineLogDirectoryCount": MBean("kafka.log", "LogManager", "Log directories that failed"),
    "NumIncrementalFetchSessions": MBean(
        "kafka.server", "FetchSessionCache", "Fetch sessions of followers and consumers that are kept here"
    ),
    "PurgatorySize": MBean(
        "kafka.server", "DelayedOperationPurgatory", "Produce and fetch requests that wait"
    ),
    "NumOffsets": MBean("kafka.server", "GroupMetadataManager", "Committed offsets coordinated here"),
    "NumGroups": MBean("kafka.server", "GroupMetadataManager", "Groups coordinated here"),
    "NumGroupsPreparingRebalance": MBean(
        "kafka.server", "GroupMetadataManager", "Groups that collect joins for a generation"
    ),
    "NumGroupsCompletingRebalance": MBean(
        "kafka.server", "GroupMetadataManager", "Groups that wait for their leader's assignment"
    ),
    "NumGroupsStable": MBean("kafka.server", "GroupMetadataManager", "Groups that have their assignment"),
    "NumGroupsEmpty": MBean("kafka.server", "GroupMetadataManager", "Groups without members"),
    "FrozenPartitionCount": MBean(
        "kafkalite", "ReplicaManager", "Partitions led here that acknowledge nothing with acks 0 or 1"
    ),
    "IsrChangesInFlight": MBean(
        "kafkalite", "ReplicaManager", "ISR changes whose outcome in ZooKeeper is not known yet"
    ),
    "ZooKeeperSessionConnected": MBean(
        "kafkalite", "Broker", "1 while the ZooKeeper session is connected, else 0"
    ),
}
GAUGES: Final = MappingProxyType(_GAUGES)
"""Every gauge a broker may register, by Kafka's name."""

_BUCKETS_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000)


class _Times:
    """A histogram of request times that costs one bisection and two additions."""

    __slots__ = ("counts", "sum_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS_MS) + 1)
        self.sum_ms = 0.0


_COUNTERS = {
    "UncleanLeaderElectionsPerSec": MBean(
        "kafka.controller", "ControllerStats", "Leaders this controller elected from outside the ISR"
    ),
}
COUNTERS: Final = MappingProxyType(_COUNTERS)
"""Every counter a broker may register beside those of topics and requests, by Kafka's name."""

_TOPIC_COUNTERS: Final = (
    ("messages_in", "MessagesInPerSec", "Records that producers appended"),
    ("bytes_in", "BytesInPerSec", "Bytes of batches that producers appended"),
    ("bytes_out", "BytesOutPerSec", "Bytes of batches that consumers fetched"),
    ("replication_bytes_in", "ReplicationBytesInPerSec", "Bytes of batches fetched here as a follower"),
    ("replication_bytes_out", "ReplicationBytesOutPerSec", "Bytes of batches that followers fetched"),
    ("produce_requests", "TotalProduceRequestsPerSec", "Produce requests, one a partition"),
    ("failed_produce_requests", "FailedProduceRequestsPerSec", "Produce requests refused, one a partition"),
    ("fetch_requests", "TotalFetchRequestsPerSec", "Fetch requests, one a partition"),
    ("failed_fetch_requests", "FailedFetchRequestsPerSec", "Fetch requests refused, one a partition"),
)


class BrokerMetrics(Collector):
    """One broker's counters and gauges. Belongs to the loop; not thread-safe."""

    def __init__(self, *, process: bool = False) -> None:
        """``process`` adds this process's CPU time, memory and descriptors (of no use where several
        brokers share one)."""
        self._gauges: dict[str, Callable[[], float]] = {}
        self._counters: dict[str, Callable[[], float]] = {}
        self._read_topics: Callable[[], Mapping[str, TopicCounters]] = dict
        self._families: list[Callable[[], Iterable[Metric]]] = []
        self._times: dict[str, _Times] = {}
        self._errors: dict[tuple[str, str], int] = {}
        self._events: dict[str, int] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        if process:
            ProcessCollector(registry=self._registry)

    # --- What the broker tells -------------------------------------------------------------------

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Read the gauge ``name`` (one of :data:`GAUGES`) by calling ``read`` at each scrape."""
        assert name in GAUGES, f"{name} is not in the table of gauges"
        self._gauges[name] = read

    def counter(self, name: str, read: Callable[[], float]) -> None:
        """Read the counter ``name`` (one of :data:`COUNTERS`) by calling ``read`` at each scrape."""
        assert name in COUNTERS, f"{name} is not in the table of counters"
        self._counters[name] = read

    def observe_request(self, api: str, seconds: float) -> None:
        """Count one request to ``api`` and how long it took, waiting in the purgatory included."""
        times = self._times.get(api)
        if times is None:
            times = self._times[api] = _Times()
        milliseconds = seconds * 1000
        times.counts[bisect_left(_BUCKETS_MS, milliseconds)] += 1
        times.sum_ms += milliseconds

    def request_refused(self, api: str, error: str) -> None:
        """Count a request that never reached its API, or failed in it as a whole."""
        key = (api, error)
        self._errors[key] = self._errors.get(key, 0) + 1

    def topic_counters(self, read: Callable[[], Mapping[str, TopicCounters]]) -> None:
        """Read what went in and out of each topic by calling ``read`` at each scrape."""
        self._read_topics = read

    def families(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Add what ``read`` returns at each scrape: for parts whose metrics have labels of their own."""
        self._families.append(read)

    def journal_event(self, event: Event) -> None:
        """Count ``event`` by its type; to be subscribed to the journal."""
        self._events[event.type] = self._events.get(event.type, 0) + 1

    # --- What a scrape reads ---------------------------------------------------------------------

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format (:data:`CONTENT_TYPE`)."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Build the families; called by the registry."""
        for name, read in self._gauges.items():
            bean = GAUGES[name]
            family = GaugeMetricFamily(_metric_name(bean.domain, bean.type, name), bean.help)
            family.add_metric([], float(read()))
            yield family
        for name, read in self._counters.items():
            bean = COUNTERS[name]
            yield CounterMetricFamily(
                _metric_name(bean.domain, bean.type, name), bean.help, value=float(read())
            )
        yield from self._collect_topics()
        yield from self._collect_requests()
        for read_families in self._families:
            yield from read_families()
        events = CounterMetricFamily(
            "kafkalite_journal_events", "Events of the journal by type", labels=["type"]
        )
        for type, count in self._events.items():
            events.add_metric([type], count)
        yield events

    def _collect_topics(self) -> Iterator[Metric]:
        topics = self._read_topics()
        for attribute, name, help in _TOPIC_COUNTERS:
            family = CounterMetricFamily(
                _metric_name("kafka.server", "BrokerTopicMetrics", name),
                f"{help}; the sample without a topic is the whole broker",
                labels=["topic"],
            )
            whole = CounterMetricFamily(family.name, family.documentation)
            total = 0
            for topic, totals in topics.items():
                count = getattr(totals, attribute)
                total += count
                family.add_metric([topic], count)
            whole.add_metric([], total)
            family.samples[:0] = whole.samples
            yield family

    def _collect_requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            _metric_name("kafka.network", "RequestMetrics", "RequestsPerSec"),
            "Requests answered, by API",
            labels=["request"],
        )
        times = HistogramMetricFamily(
            _metric_name("kafka.network", "RequestMetrics", "TotalTimeMs"),
            "Milliseconds from a request's last byte to its answer, by API",
            labels=["request"],
        )
        for api, observed in self._times.items():
            cumulative = 0
            buckets = []
            for bound, count in zip((*map(str, _BUCKETS_MS), "+Inf"), observed.counts, strict=True):
                cumulative += count
                buckets.append((bound, cumulative))
            requests.add_metric([api], cumulative)
            times.add_metric([api], buckets=buckets, sum_value=observed.sum_ms)
        errors = CounterMetricFamily(
            _metric_name("kafka.network", "RequestMetrics", "ErrorsPerSec"),
            "Requests refused as a whole, by API and error",
            labels=["request", "error"],
        )
        for (api, error), count in self._errors.items():
            errors.add_metric([api, error], count)
        yield requests
        yield times
        yield errors


def _metric_name(domain: str, type: str, name: str) -> str:
    return f"{domain.replace('.', '_')}_{type}_{name}"
