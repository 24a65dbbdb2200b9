"""`kafkalite cluster`: every verb returns when what it promises is true."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.commands import SCRIPTS, SHORT_SESSION, LocalCluster, run


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three brokers and one ZooKeeper; every test leaves it healthy."""
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster") / "a directory")
    try:
        cluster.verb("up", "--brokers", "3", "--override", SHORT_SESSION)
        yield cluster
    finally:
        cluster.verb("down", "--delete", expect=None)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_status_is_the_contracts(cluster: LocalCluster) -> None:
    status = cluster.status(expect=0)
    assert list(status) == [
        "dir",
        "state",
        "cluster_id",
        "zookeeper_connect",
        "bootstrap_servers",
        "controller",
        "processes",
    ]
    assert status["state"] == "healthy"
    assert status["dir"] == str(cluster.directory)
    assert status["controller"] in (1, 2, 3)
    assert len(status["cluster_id"]) == 22
    assert [process["name"] for process in status["processes"]] == [
        "zookeeper-1",
        "broker-1",
        "broker-2",
        "broker-3",
    ]
    for process in status["processes"]:
        assert list(process) == ["name", "kind", "id", "pid", "host", "port", "state", "log"]
        assert process["name"] == f"{process['kind']}-{process['id']}"
        assert process["state"] == "running"
        assert alive(process["pid"])
        assert Path(process["log"]).exists()
    addresses = [f"{p['host']}:{p['port']}" for p in status["processes"]]
    assert status["zookeeper_connect"] == addresses[0]
    assert status["bootstrap_servers"] == ",".join(addresses[1:])


def test_up_again_changes_nothing(cluster: LocalCluster) -> None:
    before = cluster.status()
    assert cluster.verb("up", "--output", "json").json() == before
    refused = cluster.verb("up", "--brokers", "5", expect=1)
    assert "has 3 brokers, not 5" in refused.err


def test_killed_and_started(cluster: LocalCluster) -> None:
    pid, port = cluster.process("broker-2")["pid"], cluster.process("broker-2")["port"]
    assert cluster.verb("kill", "broker-2").out == b""
    assert not alive(pid)
    status = cluster.status(expect=10)
    assert status["state"] == "degraded"
    assert cluster.process("broker-2")["state"] == "stopped"
    assert cluster.process("broker-2")["pid"] is None
    cluster.verb("start", "broker-2")
    assert cluster.status(expect=0)["state"] == "healthy"
    assert cluster.process("broker-2")["port"] == port
    assert cluster.process("broker-2")["pid"] != pid


def test_paused_and_resumed(cluster: LocalCluster) -> None:
    pid = cluster.process("broker-1")["pid"]
    cluster.verb("pause", "broker-1")
    assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    assert cluster.process("broker-1")["state"] == "paused"
    assert cluster.process("broker-1")["pid"] == pid
    cluster.verb("resume", "broker-1")
    assert cluster.verb("up", "--output", "json").json()["state"] == "healthy"
    assert cluster.process("broker-1")["pid"] == pid


def test_stop_is_a_controlled_shutdown(cluster: LocalCluster) -> None:
    pid = cluster.process("broker-3")["pid"]
    cluster.verb("stop", "broker-3")
    assert not alive(pid)
    events = (cluster.directory / "broker-3" / "data" / "state-change.log").read_text()
    assert "ControlledShutdown" in events
    cluster.verb("start", "broker-3")
    assert cluster.status(expect=0)["state"] == "healthy"


def test_restart_is_one_after_the_other(cluster: LocalCluster) -> None:
    before = {name: cluster.process(name)["pid"] for name in ("broker-1", "broker-2")}
    cluster.verb("restart", "broker-1", "broker-2")
    assert cluster.status(expect=0)["state"] == "healthy"
    assert all(cluster.process(name)["pid"] != pid for name, pid in before.items())


def test_down_and_up_again_with_the_same_ports_and_data(cluster: LocalCluster) -> None:
    before = cluster.status()
    run("kafka-topics", "--bootstrap-server", cluster.bootstrap, "--create", "--topic", "stays")
    cluster.verb("down")
    down = cluster.status(expect=10)
    assert down["state"] == "down"
    assert down["cluster_id"] == before["cluster_id"]
    assert down["controller"] is None
    assert {process["state"] for process in down["processes"]} == {"stopped"}
    cluster.verb("up")
    after = cluster.status(expect=0)
    assert after["cluster_id"] == before["cluster_id"]
    assert after["bootstrap_servers"] == before["bootstrap_servers"]
    assert "stays" in run("kafka-topics", "--bootstrap-server", cluster.bootstrap, "--list").text.split()


def test_names_that_there_are_not(cluster: LocalCluster) -> None:
    refused = cluster.verb("kill", "broker-9", expect=3)
    assert "no broker-9 in this cluster" in refused.err


def test_a_broker_that_cannot_start_says_why(cluster: LocalCluster) -> None:
    cluster.verb("stop", "broker-3")
    properties = cluster.directory / "broker-3" / "data" / "meta.properties"
    content = properties.read_text()
    properties.write_text(content.replace("broker.id=3", "broker.id=7"))
    refused = cluster.verb("start", "broker-3", expect=1)
    assert "broker-3 did not start: kafkalite broker: " in refused.err
    assert "7" in refused.err
    assert refused.err.count("\n") == 1
    properties.write_text(content)
    cluster.verb("start", "broker-3")
    assert cluster.status(expect=0)["state"] == "healthy"


def test_two_clusters_do_not_meet(cluster: LocalCluster, tmp_path: Path) -> None:
    other = LocalCluster(tmp_path / "other")
    try:
        mine = other.verb("up", "--brokers", "1", "--output", "json").json()
        theirs = cluster.status(expect=0)
        ports = [{process["port"] for process in status["processes"]} for status in (mine, theirs)]
        assert not ports[0] & ports[1]
        assert mine["cluster_id"] != theirs["cluster_id"]
        pids = [process["pid"] for process in mine["processes"]]
    finally:
        other.verb("down", "--delete", expect=None)
    assert not other.directory.exists()
    assert not any(map(alive, pids))


def test_a_reused_pid_is_left_alone(cluster: LocalCluster) -> None:
    """The note of a killed broker is pointed at this very test: the verbs must not touch it."""
    note = cluster.directory / "broker-2" / "process.json"
    cluster.verb("kill", "broker-2")
    note.write_text(f'{{"pid": {os.getpid()}, "start_ticks": 1}}')
    assert cluster.process("broker-2")["state"] == "stopped"
    cluster.verb("kill", "broker-2")
    cluster.verb("start", "broker-2")
    assert cluster.status(expect=0)["state"] == "healthy"


def test_sigterm_exits_0_and_a_port_in_use_exits_1(cluster: LocalCluster, tmp_path: Path) -> None:
    properties = tmp_path / "server.properties"
    text = (cluster.directory / "broker-1" / "server.properties").read_text()
    properties.write_text(text.replace("broker.id=1", "broker.id=11"))
    data = f"log.dirs={tmp_path / 'data'}"
    refused = run("kafkalite", "broker", "--config", properties, "--override", data, expect=1)
    assert refused.out == b""
    assert refused.err.count("\n") == 1, refused.err
    assert "cannot be bound" in refused.err

    process = subprocess.Popen(
        [
            SCRIPTS / "kafkalite",
            *("broker", "--config", properties, "--override", data),
            *("--override", "listeners=PLAINTEXT://127.0.0.1:0"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert any("broker started" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
