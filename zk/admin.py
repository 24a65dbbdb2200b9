"""The writes that create topics and change configs, in Kafka's order.

They take the store they write through: the controller passes its :class:`~zk.store.FencedStore`, a
tool that speaks to ZooKeeper alone a plain :class:`~zk.store.Store`.
"""

from __future__ import annotations

from collections.abc import Mapping

from zk import codecs, paths
from zk.client import ConnectionLoss, Create, MultiFailed, NodeExists, NoNode, SetData
from zk.codecs import ConfigChange, TopicRecord
from zk.store import Store, TopicExists


async def create_topic(store: Store, name: str, record: TopicRecord, config: Mapping[str, str]) -> None:
    """Write the configs of a new topic, then its znode. Raises :class:`~zk.store.TopicExists`.

    The two are not one step: configs without a topic do no harm, while a topic must never be seen
    without its configs. Whoever loses a race for the name may leave its configs behind, as in Kafka;
    so the name is looked up first, which makes that rare.
    """
    if await store.exists(paths.topic(name)) is not None:
        raise TopicExists(f"topic {name} exists already")
    await _write_config(store, paths.entity_config("topics", name), config)
    await store.create_topic(name, record)


async def change_config(store: Store, config: Mapping[str, str], entity_type: str, *names: str) -> None:
    """Replace all configs of an entity and tell the brokers, who then read them anew.

    ``names`` as in :func:`zk.paths.entity_config`. The last writer wins.
    """
    await _write_config(store, paths.entity_config(entity_type, *names), config)
    change = ConfigChange(paths.entity_name(entity_type, *names))
    await store.create_sequential(paths.config_change(), codecs.encode_config_change(change))


async def request_topic_deletion(store: Store, name: str) -> None:
    """Leave the wish that a topic be deleted; the controller sees to it."""
    await store.create_if_missing(paths.delete_topic(name))


async def _write_config(store: Store, path: str, config: Mapping[str, str]) -> None:
    data = codecs.encode_config(config)
    operation: SetData | Create = SetData(path, data)
    while True:
        try:
            await store.write([operation])
            return
        except ConnectionLoss:
            continue  # Written twice is written once; a creation that took effect becomes a NodeExists.
        except MultiFailed as failure:
            if isinstance(failure.error, NoNode) and isinstance(operation, SetData):
                await store.create_if_missing(path.rpartition("/")[0])
                operation = Create(path, data)
            elif isinstance(failure.error, NodeExists | NoNode):
                operation = SetData(path, data)
            else:
                raise
