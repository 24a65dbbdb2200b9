"""What ZooKeeper knows about a cluster: read once, for people and for `cluster status`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import msgspec

from kafkalite.edge import SystemClock
from zk import codecs, paths
from zk.client import ConnectionLoss, SessionExpired
from zk.session import ZooKeeperConfig, connect
from zk.store import BadRecord, Store


class ClusterView(msgspec.Struct, frozen=True):
    """The part of the znodes that says whether the cluster is whole."""

    cluster_id: str | None
    """None where no broker has ever been there."""
    controller: int | None
    brokers: frozenset[int]
    """The ids that are registered."""


async def read_view(zookeeper_connect: str, *, timeout_s: float) -> ClusterView | None:
    """Read the view, or return None where no ZooKeeper answers in time."""

    async def read(store: Store) -> ClusterView:
        found = await store.get(paths.CLUSTER_ID)
        controller = await store.controller()
        return ClusterView(
            cluster_id=codecs.decode_cluster_id(found[0]) if found is not None else None,
            controller=controller.broker_id if controller is not None else None,
            brokers=frozenset(await store.broker_ids()),
        )

    with contextlib.suppress(ConnectionLoss, SessionExpired, TimeoutError, BadRecord):
        async with asyncio.timeout(timeout_s):
            store = await _open(zookeeper_connect, timeout_s)
            try:
                return await read(store)
            finally:
                await store.zk.close()
    return None


async def read_znodes(
    zookeeper_connect: str, wanted: Sequence[str], *, timeout_s: float
) -> Mapping[str, str | None]:
    """The text of some znodes; None for one that is not there. Raises what the session raises."""
    async with asyncio.timeout(timeout_s):
        store = await _open(zookeeper_connect, timeout_s)
        try:
            found = {path: await store.get(path) for path in wanted}
        finally:
            await store.zk.close()
    return {
        path: node[0].decode(errors="replace") if node is not None else None for path, node in found.items()
    }


async def _open(zookeeper_connect: str, timeout_s: float) -> Store:
    config = ZooKeeperConfig(
        connect=zookeeper_connect, session_timeout_ms=10_000, connection_timeout_ms=int(timeout_s * 1000)
    )
    return Store(await connect(config, SystemClock()))
