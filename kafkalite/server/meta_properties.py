"""`meta.properties`: whose data a log directory holds.

One small properties file in each log directory names the broker and the cluster that it belongs
to, so that a directory mounted at the wrong place is refused instead of being served. Beside
Kafka's fields it keeps the ZooKeeper session ids of this broker's lives: a registration owned by
one of those is the broker's own leftover, which a restart within the old session's timeout may
replace (DESIGN section 3). A session id is written *before* the session registers anything, and
older ids are dropped only after the registration under the new one succeeded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import javaproperties
import msgspec

from kafkalite.common import BrokerId, Uuid
from kafkalite.log.files import Files

FILE_NAME = "meta.properties"


class InconsistentMetaProperties(Exception):
    """A log directory belongs to another broker or another cluster; the text says what to do."""


class MetaProperties(msgspec.Struct, frozen=True):
    """What one directory says of its owner."""

    broker_id: BrokerId | None
    cluster_id: Uuid | None
    session_ids: tuple[int, ...] = ()
    """ZooKeeper sessions of this broker that may still own a registration, newest first."""


def parse(text: str, path: str) -> MetaProperties:
    """Read the file's text. Raises InconsistentMetaProperties where it is not ours to read."""
    fields: dict[str, str] = javaproperties.loads(text)
    version = fields.get("version", "0")
    if version != "0":
        raise InconsistentMetaProperties(
            f"{path} has version {version}, this broker reads version 0 (ZooKeeper mode): "
            "use another directory in log.dirs"
        )
    try:
        broker_id = BrokerId(int(fields["broker.id"])) if "broker.id" in fields else None
        sessions = tuple(int(one, 16) for one in fields.get("zookeeper.session.ids", "").split(",") if one)
    except ValueError as error:
        raise InconsistentMetaProperties(
            f"{path} is damaged ({error}): restore it, or write broker.id and cluster.id anew"
        ) from None
    cluster_id = Uuid(fields["cluster.id"]) if "cluster.id" in fields else None
    return MetaProperties(broker_id, cluster_id, sessions)


def render(properties: MetaProperties) -> str:
    """The file's text."""
    fields = {"version": "0"}
    if properties.broker_id is not None:
        fields["broker.id"] = str(properties.broker_id)
    if properties.cluster_id is not None:
        fields["cluster.id"] = properties.cluster_id
    if properties.session_ids:
        fields["zookeeper.session.ids"] = ",".join(f"{one:x}" for one in properties.session_ids)
    return str(javaproperties.dumps(fields, timestamp=False))


def read(files: Files, directories: Iterable[str]) -> dict[str, MetaProperties]:
    """Read the file of each directory that has one. Raises OSError where a disk fails."""
    found = {}
    for directory in directories:
        path = f"{directory}/{FILE_NAME}"
        if files.exists(path):
            found[directory] = parse(files.read(path).decode(), path)
    return found


def write(files: Files, directory: str, properties: MetaProperties) -> None:
    """Write the directory's file, durably. Raises OSError."""
    files.write_atomically(f"{directory}/{FILE_NAME}", render(properties).encode())


def check(
    found: Mapping[str, MetaProperties], *, cluster_id: Uuid, configured_id: BrokerId | None
) -> BrokerId | None:
    """Return the broker id that the directories name (None where they name none).

    Raises InconsistentMetaProperties where a directory belongs to another cluster, or where
    directories and configuration name different brokers.
    """
    named: dict[BrokerId, str] = {}
    for directory, properties in found.items():
        if properties.cluster_id is not None and properties.cluster_id != cluster_id:
            raise InconsistentMetaProperties(
                f"{directory} holds data of cluster {properties.cluster_id}, but ZooKeeper holds cluster "
                f"{cluster_id}: point zookeeper.connect at the old ensemble (or its chroot), use an empty "
                f"directory in log.dirs, or delete {directory} if its data may go"
            )
        if properties.broker_id is not None:
            named.setdefault(properties.broker_id, directory)
    if len(named) > 1:
        owners = ", ".join(f"{directory} to broker {one}" for one, directory in named.items())
        raise InconsistentMetaProperties(
            f"the directories in log.dirs belong to different brokers ({owners}): give each broker its own"
        )
    stored = next(iter(named), None)
    if stored is not None and configured_id is not None and stored != configured_id:
        raise InconsistentMetaProperties(
            f"{named[stored]} belongs to broker {stored}, but broker.id is {configured_id}: "
            f"set broker.id={stored}, or use another directory in log.dirs"
        )
    return stored


def own_sessions(found: Mapping[str, MetaProperties]) -> Sequence[int]:
    """All session ids that any directory remembers, newest first, without doubles."""
    return tuple(dict.fromkeys(one for properties in found.values() for one in properties.session_ids))
