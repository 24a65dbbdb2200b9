"""What a local cluster is made of: names, ports, files, configuration. Decided once, then remembered.

Everything here is data and text; only :func:`load` and :func:`save` touch a file. Invariants: ids
count from 1 and `broker-N` has `broker.id` N; a port, once chosen, stays with its process; the
overrides of `cluster.json` are the ones in every `server.properties`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

HOST: Final = "127.0.0.1"
"""Local clusters listen on the loopback address and nowhere else."""

CLUSTER_FILE: Final = "cluster.json"

Kind = Literal["broker", "zookeeper"]


class NoCluster(Exception):
    """There is no cluster in that directory."""


class BadLayout(Exception):
    """`cluster.json` cannot be read, or what was asked for contradicts it."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the cluster."""

    kind: Kind
    id: int
    """`broker.id`, or the ensemble's `myid`; from 1."""
    port: int
    """Where clients connect."""
    quorum_port: int | None = None
    """ZooKeeper of an ensemble only: followers connect to its leader here."""
    election_port: int | None = None
    """ZooKeeper of an ensemble only: votes are exchanged here."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.id}"

    @property
    def ports(self) -> tuple[int, ...]:
        """Every port that the process binds."""
        return tuple(p for p in (self.port, self.quorum_port, self.election_port) if p is not None)


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `cluster.json`."""

    version: Literal[1] = 1
    zookeepers: tuple[Node, ...]
    brokers: tuple[Node, ...]
    chroot: str = ""
    """Where in ZooKeeper the cluster lives: empty for the root, else `/path`."""
    overrides: dict[str, str] = {}
    """Broker configuration beyond what :func:`server_properties` writes by itself."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All processes, in the order in which they start."""
        return (*self.zookeepers, *self.brokers)

    @property
    def zookeeper_connect(self) -> str:
        """`host:port,host:port/chroot`"""
        return ",".join(f"{HOST}:{node.port}" for node in self.zookeepers) + self.chroot

    @property
    def bootstrap_servers(self) -> str:
        """`host:port,host:port`"""
        return ",".join(f"{HOST}:{node.port}" for node in self.brokers)

    def node(self, name: str) -> Node:
        """Raises KeyError with a message that lists the names there are."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(f"no {name} in this cluster; there are {', '.join(n.name for n in self.nodes)}")


def plan(
    *,
    brokers: int,
    zookeepers: int,
    overrides: Mapping[str, str],
    ports: Mapping[str, tuple[int, ...]],
) -> Layout:
    """Lay out a new cluster. ``ports`` has, by process name, as many ports as :func:`ports_needed` says."""
    ensemble = []
    for number in range(1, zookeepers + 1):
        port, *quorum = ports[f"zookeeper-{number}"]
        ensemble.append(
            Node(
                kind="zookeeper",
                id=number,
                port=port,
                quorum_port=quorum[0] if quorum else None,
                election_port=quorum[1] if quorum else None,
            )
        )
    return Layout(
        zookeepers=tuple(ensemble),
        brokers=tuple(
            Node(kind="broker", id=number, port=ports[f"broker-{number}"][0])
            for number in range(1, brokers + 1)
        ),
        overrides=dict(overrides),
    )


def ports_needed(*, brokers: int, zookeepers: int) -> dict[str, tuple[int, ...]]:
    """Name, for each process, the ports that it would like: Kafka's and ZooKeeper's own, counted up."""
    wanted: dict[str, tuple[int, ...]] = {}
    for number in range(1, zookeepers + 1):
        client = 2181 + number - 1
        wanted[f"zookeeper-{number}"] = (
            (client,) if zookeepers == 1 else (client, 2888 + number - 1, 3888 + number - 1)
        )
    for number in range(1, brokers + 1):
        wanted[f"broker-{number}"] = (9092 + number - 1,)
    return wanted


def server_properties(layout: Layout, broker: Node, directory: Path) -> dict[str, str]:
    """The configuration of one broker, as it is written to its `server.properties`.

    Replication of the internal topics fits the number of brokers: Kafka's defaults (3, 3, 2)
    would leave a small cluster without consumer groups.
    """
    count = len(layout.brokers)
    return {
        "broker.id": str(broker.id),
        "listeners": f"PLAINTEXT://{HOST}:{broker.port}",
        "zookeeper.connect": layout.zookeeper_connect,
        "log.dirs": str(directory / broker.name / "data"),
        "offsets.topic.replication.factor": str(min(3, count)),
        "transaction.state.log.replication.factor": str(min(3, count)),
        "transaction.state.log.min.isr": str(min(2, count)),
        # Who is last to leave finds nobody to hand its partitions to, and should not take long to see it.
        "controlled.shutdown.retry.backoff.ms": "300",
        **layout.overrides,
    }


def properties_text(properties: Mapping[str, str], *, comment: str) -> str:
    """Render a properties file, in the order given."""
    import javaproperties  # Only who makes a cluster needs it, and it is slow to import.

    return javaproperties.dumps(properties, comments=comment, timestamp=False)


def load(directory: Path) -> Layout:
    """Read `cluster.json`. Raises NoCluster, or BadLayout where it is not what this version writes."""
    path = directory / CLUSTER_FILE
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NoCluster(f"no cluster in {directory}") from None
    try:
        return msgspec.json.decode(content, type=Layout)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadLayout(f"{path} is damaged ({error})") from error


def save(layout: Layout, directory: Path) -> None:
    """Write `cluster.json`, whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / CLUSTER_FILE, msgspec.json.format(msgspec.json.encode(layout), indent=2) + b"\n")


def write_whole(path: Path, content: bytes) -> None:
    """Replace ``path`` in one step, so that no reader ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
