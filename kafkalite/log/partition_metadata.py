"""`partition.metadata`: the id of the topic that a log belongs to.

A topic that was deleted and created again under the same name has another id; without this file a
broker that slept through it would serve the old topic's records as the new one's.
"""

from __future__ import annotations

from typing import Final

from kafkalite.common import Uuid, is_uuid
from kafkalite.log.checkpoint import CorruptCheckpointError

PARTITION_METADATA: Final = "partition.metadata"


def encode_partition_metadata(topic_id: Uuid) -> bytes:
    """The content of the file."""
    return f"version: 0\ntopic_id: {topic_id}\n".encode()


def decode_partition_metadata(data: bytes, path: str) -> Uuid:
    """Read the file. Raises :class:`CorruptCheckpointError`."""
    fields: dict[str, str] = {}
    for line in data.decode(errors="replace").splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    topic_id = fields.get("topic_id", "")
    if fields.get("version") != "0" or not is_uuid(topic_id):
        raise CorruptCheckpointError(f"{path}: version 0 and a topic id expected, found {fields}")
    return Uuid(topic_id)
