"""One cluster of its own project name and ports, shared by the tests; each finds it whole."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import docker
import docker.errors
import pytest

from kafkalite.client import AdminClient, NewTopic
from kafkalite.cluster.zookeeper import free_ports
from tests.cluster.commands import CHECKOUT, Ran, run

COMPOSE = CHECKOUT / "compose"
PROJECT = "kafkalite-test"


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """The Docker engine's SDK client, with the images that the compose files name."""
    try:
        found = docker.from_env()
        found.ping()
    except (docker.errors.DockerException, OSError) as error:
        pytest.skip(f"no Docker engine answers; compose/ci-docker starts one as root ({error})")
    for image in ("kafkalite/broker", "kafkalite/zookeeper"):
        try:
            found.images.get(image)
        except docker.errors.ImageNotFound:
            pytest.skip(f"the engine has no image {image}; compose/ci-docker builds it")
    yield found
    found.close()


@dataclass(frozen=True)
class ComposeCluster:
    """A compose project, driven by `scripts/compose` and by docker's own commands."""

    environment: dict[str, str]
    ports: tuple[int, ...]
    """Of brokers 1 to 5, on this machine."""

    _topics = itertools.count()

    def compose(self, *arguments: str, expect: int | None = 0) -> Ran:
        """Run `scripts/compose`."""
        return run("compose", *arguments, expect=expect, timeout_s=240)

    def told(self, *arguments: str) -> Any:
        """What `scripts/compose` says in JSON."""
        return self.compose(*arguments, "--output", "json").json()

    def ps(self) -> Any:
        return self.compose("ps", "--output", "json", expect=None).json()

    def in_tools(self, *command: str, stdin: str = "") -> str:
        """Run a command in the tools container; returns what it printed."""
        done = subprocess.run(
            ["docker", "exec", "-i", self.container("tools"), *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def container(self, service: str) -> str:
        """The container's name, which differs between compose's versions."""
        labels = [f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}"]
        found = docker.from_env().containers.list(all=True, filters={"label": labels})
        return str(found[0].name)

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports[:3])

    async def create_topic(self, *, partitions: int = 3) -> str:
        name = f"compose-{next(self._topics)}"
        async with AdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            await admin.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=3)])
        return name

    async def is_whole(self, topic: str) -> None:
        """Wait until every partition of ``topic`` has a leader and all its replicas in the ISR."""
        async with asyncio.timeout(90), AdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            while True:
                (description,) = await admin.describe_topics([topic])
                if all(
                    one.leader is not None and sorted(one.isr) == sorted(one.replicas)
                    for one in description.partitions
                ):
                    return
                await asyncio.sleep(0.2)

    async def leader(self, topic: str, partition: int = 0) -> int:
        async with AdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            (description,) = await admin.describe_topics([topic])
        leader = next(one.leader for one in description.partitions if one.partition == partition)
        assert leader is not None
        return leader

    async def controller(self) -> int:
        async with AdminClient(bootstrap_servers=self.bootstrap_servers) as admin:
            description = await admin.describe_cluster()
        assert description.controller_id is not None
        return description.controller_id

    async def run(self, *arguments: str) -> Any:
        """`scripts/compose` in JSON, while other things go on."""
        return await asyncio.to_thread(self.told, *arguments)

    def in_words(self, text: str) -> str:
        """Replace the ports that documents name by the ones that this project has."""
        return re.sub(r"127\.0\.0\.1:1909([1-5])", lambda m: f"127.0.0.1:{self.ports[int(m[1]) - 1]}", text)


@pytest.fixture(scope="session")
def project(engine: Any) -> Iterator[ComposeCluster]:
    """Names and ports of their own, for every command that the tests run; nothing runs yet."""
    ports = tuple(free_ports(5))
    environment = {"COMPOSE_PROJECT_NAME": PROJECT}
    environment |= {f"BROKER_{number}_PORT": str(port) for number, port in enumerate(ports, start=1)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        cluster = ComposeCluster(environment, ports)
        cluster.compose("down", "--volumes")
        yield cluster
        cluster.compose("down", "--volumes")


@pytest.fixture(scope="session")
def _running(project: ComposeCluster) -> ComposeCluster:
    """The cluster with the tools container, brought up from nothing; the time is printed."""
    started = time.monotonic()
    project.compose("up", "--with", "tools")
    print(f"\nfrom nothing to healthy: {time.monotonic() - started:.1f} s (load {os.getloadavg()[0]:.1f})")
    return project


@pytest.fixture
def cluster(_running: ComposeCluster) -> ComposeCluster:
    """The running cluster; what an earlier test may have left broken is mended."""
    if _running.ps()["state"] != "healthy":
        _running.compose("heal")
    return _running
