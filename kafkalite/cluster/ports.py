"""Ports for a local cluster, chosen so that they stay free.

A port is avoided if something listens on it, if another local cluster of this user has it (even
one that is stopped just now: it will want it back), or if the kernel may hand it to outgoing
connections. What clusters have is noted in one small file in the temporary directory, under a lock,
so that clusters set up at the same time do not choose alike. An entry whose cluster is gone is
dropped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from kafkalite.cluster.layout import CLUSTER_FILE, HOST, BadLayout


def registry_path() -> Path:
    """Where this user's clusters note their ports."""
    return Path(tempfile.gettempdir()) / f"kafkalite-ports-{os.getuid()}.json"


def choose(
    wanted: Mapping[str, tuple[int, ...]],
    *,
    is_free: Callable[[int], bool],
    ephemeral: range,
) -> dict[str, tuple[int, ...]]:
    """Give every process the ports that it wants, or the next higher ones that will do.

    Raises BadLayout when there are none below the end of the port space.
    """
    given: set[int] = set()

    def nearest(port: int) -> int:
        while port in given or not is_free(port):
            port += 1
            if port in ephemeral:
                port = ephemeral.stop
            if port > 65_535:
                raise BadLayout("no free ports left on this machine")
        given.add(port)
        return port

    return {name: tuple(nearest(port) for port in ports) for name, ports in wanted.items()}


@contextlib.contextmanager
def reserved(directory: Path, wanted: Mapping[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Choose ports for the cluster in ``directory`` and note them as taken.

    The block writes its `cluster.json`; the lock is held until then, because an entry whose
    directory has no such file is dropped by whoever comes next.
    """
    with _registry() as clusters:
        for other in [known for known in clusters if not Path(known, CLUSTER_FILE).exists()]:
            del clusters[other]
        taken = {port for ports in clusters.values() for port in ports}
        chosen = choose(
            wanted, is_free=lambda port: port not in taken and can_bind(port), ephemeral=ephemeral_ports()
        )
        clusters[str(directory)] = [port for ports in chosen.values() for port in ports]
        yield chosen


def release(directory: Path) -> None:
    """Forget the ports of the cluster in ``directory``."""
    with _registry() as clusters:
        clusters.pop(str(directory), None)


def can_bind(port: int) -> bool:
    """Tell whether nothing on this machine holds ``port`` on the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def ephemeral_ports() -> range:
    """The ports that the kernel hands to outgoing connections."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except OSError:
        return range(32_768, 61_000)
    return range(int(first), int(last) + 1)


@contextlib.contextmanager
def _registry() -> Iterator[dict[str, list[int]]]:
    """Hold the registry's lock; what the block changes is written back."""
    with open(registry_path(), "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        content = file.read()
        try:
            clusters = msgspec.json.decode(content, type=dict[str, list[int]]) if content else {}
        except msgspec.DecodeError:
            clusters = {}  # Only hints are lost: ports in use are still found by trying to bind them.
        yield clusters
        file.seek(0)
        file.truncate()
        file.write(msgspec.json.encode(clusters))
