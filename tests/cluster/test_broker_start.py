"""How a broker starts, refuses to start, and stops: one clear line, and the right exit code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from kafkalite.common import BrokerId
from kafkalite.edge import SystemClock
from tests.support.brokers import BrokerProcess, free_port
from zk import paths
from zk.session import ZooKeeperConfig, connect
from zk.store import Store

MakeBroker = Callable[..., BrokerProcess]


@pytest.fixture
async def make_broker(zookeeper_connect: str, tmp_path: Path) -> AsyncIterator[MakeBroker]:
    """Makes brokers on the test's own chroot; whatever still runs at the end is killed."""
    made: list[BrokerProcess] = []

    def make(name: str = "broker", broker_id: int = 1, **settings: str) -> BrokerProcess:
        properties = {
            "broker.id": str(broker_id),
            "listeners": f"PLAINTEXT://127.0.0.1:{free_port()}",
            "zookeeper.connect": zookeeper_connect,
            "zookeeper.session.timeout.ms": "6000",
            "log.dirs": str(tmp_path / name / "data"),
            **{key.replace("_", "."): value for key, value in settings.items()},
        }
        made.append(BrokerProcess(tmp_path / name, properties))
        return made[-1]

    yield make
    for broker in made:
        if broker.process is not None and broker.process.returncode is None:
            await broker.kill()


async def test_sigterm_ends_with_exit_code_0_and_leaves_no_registration(
    make_broker: MakeBroker, zookeeper_connect: str, tmp_path: Path
) -> None:
    broker = make_broker()
    await broker.start()
    assert await broker.stop() == 0
    assert (tmp_path / "broker" / "data" / ".kafka_cleanshutdown").exists()
    zk = await connect(ZooKeeperConfig(zookeeper_connect), SystemClock())
    assert await Store(zk).broker_ids() == []
    await zk.close()


async def test_restart_within_the_old_sessions_timeout(
    make_broker: MakeBroker, zookeeper_connect: str
) -> None:
    """kill -9 leaves the registration behind; the next life recognises it as its own and replaces it."""
    broker = make_broker(zookeeper_session_timeout_ms="30000")
    await broker.start()
    zk = await connect(ZooKeeperConfig(zookeeper_connect), SystemClock())
    store = Store(zk)
    first = await store.registration_owner(BrokerId(1))
    await broker.kill()
    assert await zk.exists(paths.broker(BrokerId(1))) is not None, (
        "the old session is over: nothing is tested"
    )
    await broker.start()
    second = await store.registration_owner(BrokerId(1))
    assert first is not None
    assert second is not None
    assert second.epoch > first.epoch
    assert second.session_id != first.session_id
    await zk.close()


async def test_generated_broker_id_is_kept(make_broker: MakeBroker) -> None:
    broker = make_broker(broker_id=-1)
    await broker.start()
    health = await broker.health()
    assert health is not None
    assert health["broker_id"] == 1001
    await broker.stop()
    await broker.start()
    assert (await broker.health() or {})["broker_id"] == 1001


async def test_second_live_broker_with_the_same_id_is_refused(make_broker: MakeBroker) -> None:
    first, second = make_broker("first"), make_broker("second")
    await first.start()
    line = await second.refused()
    assert "broker 1 is registered already" in line
    assert f"127.0.0.1:{first.port}" in line
    assert "broker.id" in line
    assert (await first.health() or {})["state"] == "RUNNING"


async def test_another_clusters_directory_is_refused(make_broker: MakeBroker, tmp_path: Path) -> None:
    broker = make_broker()
    await broker.start()
    await broker.stop()
    meta = tmp_path / "broker" / "data" / "meta.properties"
    text = meta.read_text()
    old = next(line for line in text.splitlines() if line.startswith("cluster.id="))
    meta.write_text(text.replace(old, "cluster.id=AnotherClusterAltogeth"))
    line = await broker.refused()
    assert "AnotherClusterAltogeth" in line
    assert old.removeprefix("cluster.id=") in line
    assert "zookeeper.connect" in line


async def test_another_brokers_directory_is_refused(make_broker: MakeBroker) -> None:
    broker = make_broker()
    await broker.start()
    await broker.stop()
    broker.properties["broker.id"] = "2"
    assert "belongs to broker 1, but broker.id is 2" in await broker.refused()


async def test_unreachable_zookeeper_is_refused(make_broker: MakeBroker) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    broker = make_broker(zookeeper_connect=nowhere, zookeeper_connection_timeout_ms="1500")
    line = await broker.refused()
    assert nowhere in line


async def test_port_in_use_is_refused(make_broker: MakeBroker) -> None:
    async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    broker = make_broker()
    server = await asyncio.start_server(nobody, "127.0.0.1", broker.port)
    async with server:
        line = await broker.refused()
    assert f"127.0.0.1:{broker.port}" in line
    assert "listeners" in line


async def test_locked_directory_is_refused(make_broker: MakeBroker) -> None:
    first = make_broker("first")
    second = make_broker("second", broker_id=2, log_dirs=first.properties["log.dirs"])
    await first.start()
    second.properties["broker.id"] = "1"
    line = await second.refused()
    assert first.properties["log.dirs"] in line
    assert "locked" in line


async def test_inter_broker_address_that_leads_elsewhere_is_refused(make_broker: MakeBroker) -> None:
    broker = make_broker(advertised_listeners=f"PLAINTEXT://127.0.0.1:{free_port()}")
    line = await broker.refused()
    assert "does not lead back" in line
    assert "advertised.listeners" in line


async def test_inter_broker_address_of_another_broker_is_refused(make_broker: MakeBroker) -> None:
    first = make_broker("first")
    await first.start()
    second = make_broker("second", broker_id=2, advertised_listeners=first.properties["listeners"])
    line = await second.refused()
    assert "registered by broker 1" in line


async def test_other_advertised_addresses_only_warn(make_broker: MakeBroker) -> None:
    inside, outside, nowhere = free_port(), free_port(), free_port()
    broker = make_broker(
        listeners=f"INSIDE://127.0.0.1:{inside},OUTSIDE://127.0.0.1:{outside}",
        advertised_listeners=f"INSIDE://127.0.0.1:{inside},OUTSIDE://127.0.0.1:{nowhere}",
        listener_security_protocol_map="INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT",
        inter_broker_listener_name="INSIDE",
    )
    broker.properties["listeners"] = f"OUTSIDE://127.0.0.1:{outside},INSIDE://127.0.0.1:{inside}"
    await broker.start()
    assert f"127.0.0.1:{nowhere}" in broker.stderr.read_text()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("log.cleaner.threads", "4", "not honoured"),
        ("num.partitions", "none", "num.partitions"),
        ("min.insync.replicas", "0", "min.insync.replicas"),
    ],
)
async def test_bad_config_is_refused(make_broker: MakeBroker, name: str, value: str, words: str) -> None:
    broker = make_broker()
    broker.properties[name] = value
    line = await broker.refused()
    assert words in line
    assert name in line
