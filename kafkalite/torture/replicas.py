"""When the dust has settled: all replicas in sync, and their files the same, byte by byte.

The segments of two replicas may begin at different offsets (one rolled earlier, after a restart), but
from the log's start to its end the bytes are the same, because followers append what the leader has.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from kafkalite.cluster.launcher import Cluster
from kafkalite.cluster.layout import Node
from kafkalite.cluster.view import read_znodes
from kafkalite.common import TopicPartition
from zk import paths
from zk.client import ZooKeeperError

_CHUNK: Final = 1 << 20
_LOOK_AGAIN_S: Final = 0.2


async def all_in_sync(cluster: Cluster, partitions: Sequence[TopicPartition], *, timeout_s: float) -> None:
    """Wait until every partition has a leader and every broker in its ISR. Raises TimeoutError."""
    wanted = {paths.partition_state(one): one for one in partitions}
    everyone = {node.id for node in cluster.layout.brokers}
    lacking: list[str] = []
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    znodes = await read_znodes(cluster.layout.zookeeper_connect, list(wanted), timeout_s=5)
                except (ZooKeeperError, TimeoutError):
                    lacking = ["ZooKeeper does not answer"]
                else:
                    lacking = [
                        str(one)
                        for path, one in wanted.items()
                        if (text := znodes[path]) is None
                        or set((state := json.loads(text))["isr"]) != everyone
                        or state["leader"] == -1
                    ]
                if not lacking:
                    return
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError:
        raise TimeoutError(f"not in sync within {timeout_s:g} s: {', '.join(lacking)}") from None


async def compare(
    cluster: Cluster, partitions: Sequence[TopicPartition], *, timeout_s: float
) -> list[tuple[TopicPartition, str]]:
    """The partitions whose replicas' files differ, and how; empty where all are the same.

    Nothing is written meanwhile, but a follower may still fetch the last records: one that is only
    shorter is looked at again until ``timeout_s`` is over.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    found: list[tuple[TopicPartition, str]] = []
    for one in partitions:
        while True:
            difference = await asyncio.to_thread(_difference, cluster, one)
            if difference is None:
                break
            if not difference.may_pass or loop.time() > deadline:
                found.append((one, difference.text))
                break
            await asyncio.sleep(_LOOK_AGAIN_S)
    return found


class _Difference(msgspec.Struct, frozen=True):
    text: str
    may_pass: bool
    """One log is the beginning of the other."""


def _difference(cluster: Cluster, partition: TopicPartition) -> _Difference | None:
    first, *others = cluster.layout.brokers
    for other in others:
        logs = _log(cluster, first, partition), _log(cluster, other, partition)
        found = first_difference(*logs)
        if found is not None:
            return _Difference(
                f"the logs of {first.name} and {other.name} differ from byte {found} on",
                may_pass=found == min(size(log) for log in logs),
            )
    return None


def size(directory: Path) -> int:
    """How many bytes of records a log directory holds."""
    return sum(segment.stat().st_size for segment in directory.glob("*.log"))


def _log(cluster: Cluster, node: Node, partition: TopicPartition) -> Path:
    return cluster.directory / node.name / "data" / str(partition)


def first_difference(one: Path, other: Path) -> int | None:
    """Where the records in two log directories begin to differ, in bytes; None where they do not."""
    position = 0
    left, right = _bytes(one), _bytes(other)
    a = b = b""
    while True:
        a = a or next(left, b"")
        b = b or next(right, b"")
        size = min(len(a), len(b))
        if size == 0:
            return None if a == b else position
        if a[:size] != b[:size]:
            return position + next(index for index in range(size) if a[index] != b[index])
        a, b, position = a[size:], b[size:], position + size


def _bytes(directory: Path) -> Iterator[bytes]:
    """What the segments hold, one after the other, in pieces that are never empty."""
    for segment in sorted(directory.glob("*.log")):
        with open(segment, "rb") as file:
            while piece := file.read(_CHUNK):
                yield piece
