"""What a scrape shows."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kafkalite.common import BrokerId
from kafkalite.journal import Event, EventId
from kafkalite.replication.replica import TopicCounters
from kafkalite.server.metrics import COUNTERS, GAUGES, BrokerMetrics


def scrape(metrics: BrokerMetrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_gauge_is_read_when_it_is_scraped() -> None:
    metrics = BrokerMetrics()
    under_replicated = [0]
    metrics.gauge("UnderReplicatedPartitions", lambda: under_replicated[0])
    name = ("kafka_server_ReplicaManager_UnderReplicatedPartitions", ())
    assert scrape(metrics)[name] == 0
    under_replicated[0] = 4
    assert scrape(metrics)[name] == 4


def test_a_gauge_outside_the_table_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="UnderReplicated"):
        BrokerMetrics().gauge("UnderReplicated", lambda: 0)


def test_the_gauges_operators_look_at_first_are_in_the_table() -> None:
    assert {
        "UnderReplicatedPartitions",
        "UnderMinIsrPartitionCount",
        "OfflinePartitionsCount",
        "ActiveControllerCount",
    } <= set(GAUGES)


def test_every_gauge_has_a_name_that_prometheus_takes() -> None:
    metrics = BrokerMetrics()
    for name in GAUGES:
        metrics.gauge(name, lambda: 1)
    assert len([value for value in scrape(metrics).values() if value == 1]) == len(GAUGES)


def test_topics_are_counted_alone_and_together() -> None:
    metrics = BrokerMetrics()
    topics = {
        "a": TopicCounters(messages_in=10, bytes_in=1000, bytes_out=500, replication_bytes_out=700),
        "b": TopicCounters(messages_in=1, bytes_in=100, replication_bytes_in=30),
    }
    topics["a"].fetch_requests, topics["a"].failed_fetch_requests = 2, 1
    topics["b"].produce_requests, topics["b"].failed_produce_requests = 2, 1
    metrics.topic_counters(lambda: topics)
    found = scrape(metrics)

    def total(name: str, *topic: str) -> float:
        labels = tuple(("topic", t) for t in topic)
        return found[(f"kafka_server_BrokerTopicMetrics_{name}_total", labels)]

    assert (total("MessagesInPerSec", "a"), total("MessagesInPerSec")) == (10, 11)
    assert (total("BytesInPerSec", "b"), total("BytesInPerSec")) == (100, 1100)
    assert (total("BytesOutPerSec", "a"), total("ReplicationBytesOutPerSec", "a")) == (500, 700)
    assert (total("TotalProduceRequestsPerSec", "b"), total("FailedProduceRequestsPerSec", "b")) == (2, 1)
    assert (total("TotalFetchRequestsPerSec", "a"), total("FailedFetchRequestsPerSec", "a")) == (2, 1)
    assert total("ReplicationBytesInPerSec", "b") == 30
    del topics["a"]
    assert ("kafka_server_BrokerTopicMetrics_BytesInPerSec_total", (("topic", "a"),)) not in scrape(metrics)


def test_request_times_are_a_histogram_by_api() -> None:
    metrics = BrokerMetrics()
    for milliseconds in (0.5, 1, 1.5, 40, 60_000):
        metrics.observe_request("produce", milliseconds / 1000)
    found = scrape(metrics)
    name = "kafka_network_RequestMetrics_TotalTimeMs"

    def bucket(bound: str) -> float:
        return found[(f"{name}_bucket", (("le", bound), ("request", "produce")))]

    assert [bucket(bound) for bound in ("1", "2", "20", "50", "30000", "+Inf")] == [2, 3, 3, 4, 4, 5]
    assert found[(f"{name}_sum", (("request", "produce"),))] == pytest.approx(60_043)
    requests = ("kafka_network_RequestMetrics_RequestsPerSec_total", (("request", "produce"),))
    assert found[requests] == 5


def test_events_of_the_journal_are_counted_by_type() -> None:
    metrics = BrokerMetrics()
    event = Event(EventId("1-1-0"), 0, BrokerId(1), "IsrShrunk", None)
    metrics.journal_event(event)
    metrics.journal_event(event)
    assert scrape(metrics)[("kafkalite_journal_events_total", (("type", "IsrShrunk"),))] == 2


def test_two_brokers_in_one_process_do_not_share_metrics() -> None:
    one, other = BrokerMetrics(), BrokerMetrics(process=True)
    one.topic_counters(lambda: {"t": TopicCounters(messages_in=1)})
    assert "topic=" not in other.exposition().decode()
    assert ("process_cpu_seconds_total", ()) in scrape(other)
    assert ("process_cpu_seconds_total", ()) not in scrape(one)


def test_every_counter_has_a_name_of_its_own_and_counts() -> None:
    metrics = BrokerMetrics()
    for name in COUNTERS:
        metrics.counter(name, lambda: 3)
    assert scrape(metrics)["kafka_controller_ControllerStats_UncleanLeaderElectionsPerSec_total", ()] == 3
    assert list(scrape(metrics).values()).count(3) == len(COUNTERS)
    with pytest.raises(AssertionError, match="UncleanLeaderElections"):
        metrics.counter("UncleanLeaderElections", lambda: 0)
