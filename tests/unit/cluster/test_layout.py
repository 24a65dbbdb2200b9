"""What a local cluster is laid out as: names, ports, server.properties, cluster.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from kafkalite.cluster import layout as layouts
from kafkalite.cluster.launcher import check_overrides
from kafkalite.cluster.layout import BadLayout, Layout, NoCluster
from kafkalite.server.config import BrokerConfig


def planned(brokers: int, zookeepers: int, overrides: dict[str, str] | None = None) -> Layout:
    return layouts.plan(
        brokers=brokers,
        zookeepers=zookeepers,
        overrides=overrides or {},
        ports=layouts.ports_needed(brokers=brokers, zookeepers=zookeepers),
    )


def test_names_and_ids_count_from_one() -> None:
    layout = planned(2, 3)
    assert [node.name for node in layout.nodes] == [
        "zookeeper-1",
        "zookeeper-2",
        "zookeeper-3",
        "broker-1",
        "broker-2",
    ]
    assert [node.id for node in layout.brokers] == [1, 2]
    assert layout.node("broker-2").port == 9093


def test_an_unknown_name_lists_the_names_there_are() -> None:
    with pytest.raises(KeyError, match="no broker-9 in this cluster; there are zookeeper-1, broker-1"):
        planned(1, 1).node("broker-9")


def test_connect_strings() -> None:
    layout = planned(2, 3)
    assert layout.zookeeper_connect == "127.0.0.1:2181,127.0.0.1:2182,127.0.0.1:2183"
    assert layout.bootstrap_servers == "127.0.0.1:9092,127.0.0.1:9093"


def test_no_port_is_asked_for_twice() -> None:
    ports = [p for node in planned(5, 5).nodes for p in node.ports]
    assert len(ports) == len(set(ports)) == 20
    assert planned(1, 1).zookeepers[0].ports == (2181,), "a single ZooKeeper has no quorum"


@pytest.mark.parametrize(
    ("brokers", "factor", "min_isr"), [(1, "1", "1"), (2, "2", "2"), (3, "3", "2"), (5, "3", "2")]
)
def test_internal_topics_fit_the_number_of_brokers(brokers: int, factor: str, min_isr: str) -> None:
    layout = planned(brokers, 1)
    properties = layouts.server_properties(layout, layout.brokers[0], Path("/somewhere"))
    assert properties["offsets.topic.replication.factor"] == factor
    assert properties["transaction.state.log.replication.factor"] == factor
    assert properties["transaction.state.log.min.isr"] == min_isr


def test_a_broker_reads_back_what_was_written(tmp_path: Path) -> None:
    directory = tmp_path / "odd=name: ünï"
    layout = planned(3, 3, {"zookeeper.session.timeout.ms": "6000"})
    file = tmp_path / "server.properties"
    file.write_text(
        layouts.properties_text(layouts.server_properties(layout, layout.brokers[1], directory), comment="c")
    )
    config = BrokerConfig.load(file)
    assert config.broker_id == 2
    assert config.log_dirs == (str(directory / "broker-2" / "data"),)
    assert config.zookeeper_connect == layout.zookeeper_connect
    assert config.zookeeper_session_timeout_ms == 6000
    assert [endpoint.port for endpoint in config.listeners] == [9093]
    assert not config.warnings


def test_cluster_json_comes_back_as_it_was(tmp_path: Path) -> None:
    layout = planned(3, 3, {"num.partitions": "4"})
    layouts.save(layout, tmp_path / "new" / "directory")
    assert layouts.load(tmp_path / "new" / "directory") == layout


def test_no_cluster_and_a_damaged_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NoCluster, match="no cluster in"):
        layouts.load(tmp_path)
    (tmp_path / layouts.CLUSTER_FILE).write_text('{"zookeepers": []')
    with pytest.raises(BadLayout, match="is damaged"):
        layouts.load(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"broker.id": "7"}, "the cluster sets it itself"),
        ({"listeners": "PLAINTEXT://:1"}, "the cluster sets it itself"),
        ({"num.partition": "3"}, r"--override num\.partition: not a config; did you mean num\.partitions\?"),
        ({"num.partitions": "none"}, "num.partitions"),
    ],
)
def test_what_no_broker_could_start_with_is_refused_first(
    tmp_path: Path, overrides: dict[str, str], complaint: str
) -> None:
    with pytest.raises(BadLayout, match=complaint):
        check_overrides(planned(1, 1, overrides), tmp_path)


def test_good_overrides_pass(tmp_path: Path) -> None:
    check_overrides(planned(3, 1, {"num.partitions": "3", "min.insync.replicas": "2"}), tmp_path)
