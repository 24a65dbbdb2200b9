"""Finding ZooKeeper, and what its servers are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from kafkalite.cluster import zookeeper
from kafkalite.cluster.zookeeper import ZooKeeperNotFound, configuration, find_installation
from tests.support.ensemble import plan_ensemble


@pytest.fixture
def java(tmp_path: Path) -> Path:
    """A directory with a program called java in it."""
    program = tmp_path / "jre" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program.parent


def test_a_release_is_found_by_zookeeper_home(tmp_path: Path, java: Path) -> None:
    home = tmp_path / "apache-zookeeper"
    (home / "lib").mkdir(parents=True)
    for name in ("zookeeper-3.9.2.jar", "netty-common.jar"):
        (home / "lib" / name).touch()
    found = find_installation({"ZOOKEEPER_HOME": str(home), "PATH": str(java)})
    assert found.java == str(java / "java")
    assert found.classpath == (str(home / "lib/netty-common.jar"), str(home / "lib/zookeeper-3.9.2.jar"))
    assert find_installation({"ZOOKEEPER_HOME": str(home), "JAVA_HOME": str(java.parent)}).java == found.java


def test_what_is_missing_is_said_with_what_to_do(
    tmp_path: Path, java: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zookeeper, "SYSTEM_JAR", tmp_path / "none.jar")
    with pytest.raises(ZooKeeperNotFound, match=r"no Java found.*apt-get install"):
        find_installation({"PATH": str(tmp_path)})
    with pytest.raises(ZooKeeperNotFound, match=r"no ZooKeeper found.*ZOOKEEPER_HOME.*apt-get install"):
        find_installation({"PATH": str(java)})
    with pytest.raises(ZooKeeperNotFound, match=r"ZOOKEEPER_HOME is .*no lib/zookeeper"):
        find_installation({"PATH": str(java), "ZOOKEEPER_HOME": str(tmp_path)})


def test_the_systems_package_is_found(tmp_path: Path, java: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zookeeper, "SYSTEM_JAR", tmp_path / "zookeeper.jar")
    for name in ("zookeeper.jar", "slf4j-simple.jar"):
        (tmp_path / name).touch()
    found = find_installation({"PATH": str(java)})
    assert found.classpath == (str(tmp_path / "zookeeper.jar"), str(tmp_path / "slf4j-simple.jar"))


def test_every_ensemble_has_the_same_timing_and_listens_on_loopback(tmp_path: Path) -> None:
    servers = plan_ensemble(tmp_path, 3, ports=range(2001, 2010))
    settings = dict(line.split("=", 1) for line in configuration(servers[1], servers).splitlines())
    assert (
        settings.items()
        >= {
            "tickTime": "500",
            "minSessionTimeout": "1000",
            "maxSessionTimeout": "60000",
            "initLimit": "20",
            "syncLimit": "10",
            "admin.enableServer": "false",
            "clientPort": "2004",
            "clientPortAddress": "127.0.0.1",
            "dataDir": str(tmp_path / "zookeeper-2" / "data"),
            "server.1": "127.0.0.1:2002:2003",
            "server.3": "127.0.0.1:2008:2009",
        }.items()
    )


def test_a_single_server_is_no_quorum(tmp_path: Path) -> None:
    (server,) = plan_ensemble(tmp_path, 1)
    assert "server.1" not in configuration(server, [server])


def test_files_are_put_in_place_and_data_stays(tmp_path: Path) -> None:
    servers = plan_ensemble(tmp_path, 2)
    zookeeper.write_configuration(servers[1], servers)
    kept = servers[1].directory / "data" / "version-2"
    kept.mkdir()
    zookeeper.write_configuration(servers[1], servers)
    assert kept.exists()
    assert (servers[1].directory / "data" / "myid").read_text() == "2\n"
    assert servers[1].config_file.read_text() == configuration(servers[1], servers)


def test_free_ports_differ() -> None:
    assert len(set(zookeeper.free_ports(20))) == 20
