"""The records in the znodes, byte for byte as Kafka writes them, and what they mean as types.

Each record has an ``encode_…`` and a ``decode_…``. Encoding always writes the newest version;
decoding takes every version that Kafka still reads, ignores keys that it does not know, and is
strict about all that it uses: whatever is missing, of another type or makes no sense raises
:class:`BadRecord` with the znode's path and the reason, so that a slip of the hand in a ZooKeeper
shell is told as such and is never taken for a state of the cluster.

JSON is UTF-8 without spaces, as Kafka's own writer puts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from kafkalite.common import (
    BrokerEpoch,
    BrokerId,
    BrokerInfo,
    ControllerEpoch,
    Endpoint,
    LeaderAndIsr,
    LeaderEpoch,
    PartitionEpoch,
    TopicPartition,
    Uuid,
    is_uuid,
)
from zk import paths

R = TypeVar("R", bound=msgspec.Struct)

SECURITY_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

PRODUCER_ID_BLOCK_SIZE: Final = 1000
MAX_PRODUCER_ID: Final = 2**63 - 1

_INT32_MAX: Final = 2**31 - 1
_ENDPOINT: Final = re.compile(r"([^:/]+)://\[?([0-9a-zA-Z\-%._:]*)\]?:(-?[0-9]+)")


class BadRecord(Exception):
    """A znode's data is not the record that belongs there."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


# ------------------------------------------------------------------------------------- types


class ControllerRecord(msgspec.Struct, frozen=True):
    """``/controller``: who won the last election."""

    broker_id: BrokerId
    timestamp_ms: int = -1
    """When it won, in wall time; -1 where the record does not say."""
    kraft_controller_epoch: int = -1
    """Always -1: this controller lives in ZooKeeper."""


class BrokerRegistration(msgspec.Struct, frozen=True):
    """``/brokers/ids/N``: what a broker says of itself."""

    broker_id: BrokerId
    endpoints: tuple[Endpoint, ...]
    """The advertised listeners."""
    rack: str | None = None
    timestamp_ms: int = -1
    jmx_port: int = -1
    features: Mapping[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    """Supported features: name to (lowest, highest) version."""

    def info(self, epoch: BrokerEpoch) -> BrokerInfo:
        """This broker with the epoch of its registration."""
        return BrokerInfo(self.broker_id, epoch, self.endpoints, self.rack)


@dataclass(frozen=True, slots=True)
class TopicRecord:
    """``/brokers/topics/T``: the topic's id and where its replicas are, or are going."""

    topic_id: Uuid | None
    """None in records of old versions; the controller then gives it one."""
    assignment: Mapping[int, tuple[BrokerId, ...]]
    """Partition to replicas, the preferred leader first. While a partition is reassigned: target
    and original replicas together, the target's order first."""
    adding_replicas: Mapping[int, tuple[BrokerId, ...]] = field(default_factory=dict)
    """Only partitions that are being reassigned."""
    removing_replicas: Mapping[int, tuple[BrokerId, ...]] = field(default_factory=dict)
    zk_version: int = field(default=-1, compare=False)
    """Version of the znode that this was read from; no part of the record."""


class ProducerIdBlock(msgspec.Struct, frozen=True):
    """``/latest_producer_id_block``: the block of producer ids given out last."""

    broker_id: BrokerId
    first: int
    last: int
    """Inclusive."""


class LogDirEvent(msgspec.Struct, frozen=True):
    """``/log_dir_event_notification/…``: a broker lost a log directory."""

    broker_id: BrokerId
    event: int = 1
    """1, log directory failure, is the only one."""


class ConfigChange(msgspec.Struct, frozen=True):
    """``/config/changes/…``: the configs of an entity changed; the reader reads them anew."""

    entity_path: str
    """``<type>/<encoded name…>``, below ``/config``."""


class Features(msgspec.Struct, frozen=True):
    """``/feature``: finalized features, by name their highest level."""

    enabled: bool
    max_version_levels: Mapping[str, int] = msgspec.field(default_factory=dict)


class AccessRule(msgspec.Struct, frozen=True):
    """One entry in the ACLs of a resource; operations and types in Pascal case."""

    principal: str
    permission_type: str
    operation: str
    host: str


class AclChange(msgspec.Struct, frozen=True):
    """``/kafka-acl…changes/…``: the ACLs of a resource pattern changed."""

    resource_type: str
    """In upper case, as in ``TOPIC``."""
    name: str
    pattern_type: str = "LITERAL"


class DelegationToken(msgspec.Struct, frozen=True):
    """``/delegation_token/tokens/…``: all of a token but its secret. Times are wall milliseconds."""

    token_id: str
    owner: str
    """``User:alice``; in the znode the name is percent-encoded."""
    requester: str
    renewers: tuple[str, ...]
    issue_ms: int
    max_ms: int
    expiry_ms: int


# -------------------------------------------------------------------------- wire shapes (JSON)


class _Controller(msgspec.Struct):
    brokerid: int
    timestamp: str | int = "-1"
    kraftControllerEpoch: int = -1


class _FeatureRange(msgspec.Struct):
    min_version: int
    max_version: int


class _Broker(msgspec.Struct):
    version: int
    host: str | None = None
    port: int = -1
    jmx_port: int = -1
    timestamp: str | int = "-1"
    endpoints: list[str] | None = None
    rack: str | None = None
    listener_security_protocol_map: dict[str, str] | None = None
    features: dict[str, _FeatureRange] | None = None


class _Topic(msgspec.Struct):
    partitions: dict[str, list[int]]
    adding_replicas: dict[str, list[int]] = {}
    removing_replicas: dict[str, list[int]] = {}
    topic_id: str | None = None


class _State(msgspec.Struct):
    controller_epoch: int
    leader: int
    leader_epoch: int
    isr: list[int]
    leader_recovery_state: int = 0


class _ClusterId(msgspec.Struct):
    id: str


class _Config(msgspec.Struct):
    version: int
    config: dict[str, str] = {}


class _ConfigChange(msgspec.Struct):
    version: int
    entity_path: str | None = None
    entity_type: str | None = None
    entity_name: str | None = None


class _Replicas(msgspec.Struct):
    topic: str
    partition: int
    replicas: list[int]


class _Reassignment(msgspec.Struct):
    partitions: list[_Replicas]


class _Partition(msgspec.Struct):
    topic: str
    partition: int


class _Partitions(msgspec.Struct):
    partitions: list[_Partition]


class _LogDirEvent(msgspec.Struct):
    broker: int
    event: int


class _ProducerIds(msgspec.Struct):
    broker: int
    block_start: str
    block_end: str


class _Feature(msgspec.Struct):
    version: int
    status: int
    features: dict[str, dict[str, int]]


class _Rule(msgspec.Struct):
    principal: str
    permissionType: str
    operation: str
    host: str


class _Acls(msgspec.Struct):
    acls: list[_Rule]


class _AclChange(msgspec.Struct):
    resourceType: str
    name: str
    patternType: str


class _Token(msgspec.Struct):
    tokenId: str
    owner: str
    renewers: list[str]
    issueTimestamp: int
    maxTimestamp: int
    expiryTimestamp: int
    tokenRequester: str | None = None


def _encode(record: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(record)


def _decode(path: str, data: bytes, shape: type[R]) -> R:
    if not data:
        raise BadRecord(path, "no data")
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRecord(path, str(error)) from None


def _int32(path: str, what: str, value: int, *, least: int = 0) -> int:
    if not least <= value <= _INT32_MAX:
        raise BadRecord(path, f"{what} {value} is not between {least} and {_INT32_MAX}")
    return value


def _int64(path: str, what: str, value: str | int) -> int:
    try:
        number = int(value)
    except ValueError:
        raise BadRecord(path, f"{what} {value!r} is not a number") from None
    if not -(2**63) <= number < 2**63:
        raise BadRecord(path, f"{what} {number} has more than 64 bits")
    return number


def _brokers(path: str, what: str, ids: Iterable[int]) -> tuple[BrokerId, ...]:
    found = tuple(BrokerId(_int32(path, f"broker id in {what}", i)) for i in ids)
    if len(frozenset(found)) != len(found):
        raise BadRecord(path, f"{what} names a broker twice: {list(found)}")
    return found


# ------------------------------------------------------------------------------ controller


def encode_controller(record: ControllerRecord) -> bytes:
    return _encode(
        {
            "version": 2,
            "brokerid": record.broker_id,
            "timestamp": str(record.timestamp_ms),
            "kraftControllerEpoch": record.kraft_controller_epoch,
        }
    )


def decode_controller(data: bytes) -> ControllerRecord:
    """Versions 1 and 2; only ``brokerid`` is required."""
    path = paths.CONTROLLER
    record = _decode(path, data, _Controller)
    return ControllerRecord(
        BrokerId(_int32(path, "brokerid", record.brokerid)),
        _int64(path, "timestamp", record.timestamp),
        record.kraftControllerEpoch,
    )


def encode_controller_epoch(epoch: ControllerEpoch) -> bytes:
    return b"%d" % epoch


def decode_controller_epoch(data: bytes) -> ControllerEpoch:
    return ControllerEpoch(_decimal(paths.CONTROLLER_EPOCH, data, _INT32_MAX))


def _decimal(path: str, data: bytes, most: int) -> int:
    if not data.isdigit() or int(data) > most:
        raise BadRecord(path, f"{data!r} is not a number from 0 to {most}")
    return int(data)


# --------------------------------------------------------------------------------- brokers


def encode_broker(registration: BrokerRegistration) -> bytes:
    """Version 5. ``host`` and ``port`` repeat the first plaintext endpoint for old readers."""
    plain = next((e for e in registration.endpoints if e.security_protocol == "PLAINTEXT"), None)
    record: dict[str, Any] = {
        "version": 5,
        "host": None if plain is None else plain.host,
        "port": -1 if plain is None else plain.port,
        "jmx_port": registration.jmx_port,
        "timestamp": str(registration.timestamp_ms),
        "endpoints": [str(endpoint) for endpoint in registration.endpoints],
    }
    if registration.rack is not None:
        record["rack"] = registration.rack
    record["listener_security_protocol_map"] = {
        endpoint.listener: endpoint.security_protocol for endpoint in registration.endpoints
    }
    record["features"] = {
        name: {"min_version": lowest, "max_version": highest}
        for name, (lowest, highest) in registration.features.items()
    }
    return _encode(record)


def decode_broker(broker_id: BrokerId, data: bytes) -> BrokerRegistration:
    """Versions 1 to 5.

    Version 1 has one plaintext endpoint (host and port); before version 4 a listener's name is
    its security protocol.
    """
    path = paths.broker(broker_id)
    record = _decode(path, data, _Broker)
    if record.version < 1:
        raise BadRecord(path, f"version {record.version} is not known")
    if record.version == 1:
        if record.host is None:
            raise BadRecord(path, "no host")
        endpoints: tuple[Endpoint, ...] = (Endpoint("PLAINTEXT", record.host, record.port),)
    else:
        if record.endpoints is None:
            raise BadRecord(path, "no endpoints")
        endpoints = tuple(
            _endpoint(path, text, record.listener_security_protocol_map) for text in record.endpoints
        )
    return BrokerRegistration(
        broker_id,
        endpoints,
        record.rack,
        _int64(path, "timestamp", record.timestamp),
        record.jmx_port,
        {name: (f.min_version, f.max_version) for name, f in (record.features or {}).items()},
    )


def _endpoint(path: str, text: str, protocols: Mapping[str, str] | None) -> Endpoint:
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        raise BadRecord(path, f"endpoint {text!r} is not LISTENER://host:port")
    listener, host, port = match.group(1), match.group(2), int(match.group(3))
    if not -1 <= port <= 65535:
        raise BadRecord(path, f"endpoint {text!r} has no such port")
    protocol = listener if protocols is None else protocols.get(listener)
    if protocol not in SECURITY_PROTOCOLS:
        raise BadRecord(path, f"listener {listener} has no security protocol")
    return Endpoint(listener, host, port, protocol)


# ---------------------------------------------------------------------------------- topics


def encode_topic(record: TopicRecord) -> bytes:
    """Version 3; an unknown topic id is left out, as Kafka does."""
    fields: dict[str, Any] = {"version": 3}
    if record.topic_id is not None:
        fields["topic_id"] = record.topic_id
    for name, replicas in (
        ("partitions", record.assignment),
        ("adding_replicas", record.adding_replicas),
        ("removing_replicas", record.removing_replicas),
    ):
        fields[name] = {str(partition): list(ids) for partition, ids in sorted(replicas.items())}
    return _encode(fields)


def decode_topic(topic: str, data: bytes, *, zk_version: int = -1) -> TopicRecord:
    """Versions 1 (assignment only), 2 (adding and removing replicas) and 3 (topic id)."""
    path = paths.topic(topic)
    record = _decode(path, data, _Topic)
    if record.topic_id is not None and not is_uuid(record.topic_id):
        raise BadRecord(path, f"topic_id {record.topic_id!r} is not 22 characters of base64url")
    assignment = _assignment(path, "partitions", record.partitions)
    for partition, replicas in assignment.items():
        if not replicas:
            raise BadRecord(path, f"partition {partition} has no replicas")
    return TopicRecord(
        None if record.topic_id is None else Uuid(record.topic_id),
        assignment,
        _assignment(path, "adding_replicas", record.adding_replicas),
        _assignment(path, "removing_replicas", record.removing_replicas),
        zk_version,
    )


def _assignment(path: str, what: str, shape: Mapping[str, Sequence[int]]) -> dict[int, tuple[BrokerId, ...]]:
    found = {}
    for text, ids in shape.items():
        if not text.isascii() or not text.isdigit() or text != str(int(text)):
            raise BadRecord(path, f"{what}: {text!r} is not a partition")
        partition = _int32(path, f"{what}: partition", int(text))
        found[partition] = _brokers(path, f"{what} of partition {text}", ids)
    return dict(sorted(found.items()))


def encode_partition_state(state: LeaderAndIsr) -> bytes:
    """Version 1. The partition epoch is the znode's version and stands outside."""
    record: dict[str, Any] = {
        "controller_epoch": state.controller_epoch,
        "leader": state.leader,
        "version": 1,
        "leader_epoch": state.leader_epoch,
        "isr": list(state.isr),
    }
    if state.leader_recovery_state != 0:
        record["leader_recovery_state"] = state.leader_recovery_state
    return _encode(record)


def decode_partition_state(topic_partition: TopicPartition, data: bytes, *, zk_version: int) -> LeaderAndIsr:
    """``zk_version`` is the znode's version: the partition epoch."""
    path = paths.partition_state(topic_partition)
    record = _decode(path, data, _State)
    if record.leader_recovery_state not in (0, 1):
        raise BadRecord(path, f"leader_recovery_state {record.leader_recovery_state} is neither 0 nor 1")
    return LeaderAndIsr(
        BrokerId(_int32(path, "leader", record.leader, least=-2)),
        LeaderEpoch(_int32(path, "leader_epoch", record.leader_epoch)),
        _brokers(path, "isr", record.isr),
        ControllerEpoch(_int32(path, "controller_epoch", record.controller_epoch)),
        PartitionEpoch(zk_version),
        record.leader_recovery_state,
    )


# ------------------------------------------------------------------- cluster id and features


def encode_cluster_id(cluster_id: Uuid) -> bytes:
    return _encode({"version": "1", "id": cluster_id})


def decode_cluster_id(data: bytes) -> Uuid:
    """Any text is a cluster id: older clusters chose freely."""
    record = _decode(paths.CLUSTER_ID, data, _ClusterId)
    if not record.id:
        raise BadRecord(paths.CLUSTER_ID, "the id is empty")
    return Uuid(record.id)


def encode_features(features: Features) -> bytes:
    """Version 2."""
    return _encode(
        {
            "version": 2,
            "status": int(features.enabled),
            "features": {
                name: {"max_version_level": level} for name, level in features.max_version_levels.items()
            },
        }
    )


def decode_features(data: bytes) -> Features:
    """Versions 1 (which also has the lowest level) and 2."""
    record = _decode(paths.FEATURE, data, _Feature)
    if record.version not in (1, 2):
        raise BadRecord(paths.FEATURE, f"version {record.version} is not known")
    if record.status not in (0, 1):
        raise BadRecord(paths.FEATURE, f"status {record.status} is neither 0 nor 1")
    levels = {}
    for name, level in record.features.items():
        if "max_version_level" not in level:
            raise BadRecord(paths.FEATURE, f"feature {name} has no max_version_level")
        levels[name] = level["max_version_level"]
    return Features(record.status == 1, levels)


# --------------------------------------------------------------------------------- configs


def encode_config(config: Mapping[str, str]) -> bytes:
    return _encode({"version": 1, "config": dict(config)})


def decode_config(path: str, data: bytes) -> dict[str, str]:
    """The configs at ``path``. No data at all means none, as Kafka reads it."""
    if not data:
        return {}
    record = _decode(path, data, _Config)
    if record.version != 1:
        raise BadRecord(path, f"version {record.version} is not known")
    return record.config


def encode_config_change(change: ConfigChange) -> bytes:
    return _encode({"version": 2, "entity_path": change.entity_path})


def decode_config_change(path: str, data: bytes) -> ConfigChange:
    """Versions 1 (type and name of a topic or client) and 2."""
    record = _decode(path, data, _ConfigChange)
    if record.version == 1:
        if record.entity_type not in ("topics", "clients") or not record.entity_name:
            raise BadRecord(path, "version 1 names the type topics or clients, and an entity")
        return ConfigChange(f"{record.entity_type}/{record.entity_name}")
    if record.version != 2:
        raise BadRecord(path, f"version {record.version} is not known")
    entity_type, _, name = (record.entity_path or "").partition("/")
    if entity_type not in paths.CONFIG_TYPES or not name:
        raise BadRecord(path, f"entity_path {record.entity_path!r} is not <type>/<name>")
    return ConfigChange(f"{entity_type}/{name}")


# --------------------------------------------------------------- wishes of tools, notifications


def encode_reassignment(reassignment: Mapping[TopicPartition, Sequence[BrokerId]]) -> bytes:
    return _encode(
        {
            "version": 1,
            "partitions": [
                {"topic": tp.topic, "partition": tp.partition, "replicas": list(replicas)}
                for tp, replicas in reassignment.items()
            ],
        }
    )


def decode_reassignment(data: bytes) -> dict[TopicPartition, tuple[BrokerId, ...]]:
    path = paths.REASSIGN_PARTITIONS
    found: dict[TopicPartition, tuple[BrokerId, ...]] = {}
    for item in _decode(path, data, _Reassignment).partitions:
        tp = TopicPartition(item.topic, _int32(path, "partition", item.partition))
        found[tp] = _brokers(path, f"replicas of {tp}", item.replicas)
    return found


def _encode_partitions(partitions: Iterable[TopicPartition]) -> bytes:
    return _encode(
        {"version": 1, "partitions": [{"topic": tp.topic, "partition": tp.partition} for tp in partitions]}
    )


def _decode_partitions(path: str, data: bytes) -> tuple[TopicPartition, ...]:
    items = _decode(path, data, _Partitions).partitions
    return tuple(TopicPartition(i.topic, _int32(path, "partition", i.partition)) for i in items)


def encode_preferred_replica_election(partitions: Iterable[TopicPartition]) -> bytes:
    return _encode_partitions(partitions)


def decode_preferred_replica_election(data: bytes) -> tuple[TopicPartition, ...]:
    return _decode_partitions(paths.PREFERRED_REPLICA_ELECTION, data)


def encode_isr_change(partitions: Iterable[TopicPartition]) -> bytes:
    return _encode_partitions(partitions)


def decode_isr_change(path: str, data: bytes) -> tuple[TopicPartition, ...]:
    return _decode_partitions(path, data)


def encode_log_dir_event(event: LogDirEvent) -> bytes:
    return _encode({"version": 1, "broker": event.broker_id, "event": event.event})


def decode_log_dir_event(path: str, data: bytes) -> LogDirEvent:
    record = _decode(path, data, _LogDirEvent)
    return LogDirEvent(BrokerId(_int32(path, "broker", record.broker)), record.event)


# ------------------------------------------------------------------------------ producer ids


def encode_producer_id_block(block: ProducerIdBlock) -> bytes:
    return _encode(
        {
            "version": 1,
            "broker": block.broker_id,
            "block_start": str(block.first),
            "block_end": str(block.last),
        }
    )


def decode_producer_id_block(data: bytes) -> ProducerIdBlock | None:
    """None where no block was given out yet (the znode is created without data)."""
    if not data:
        return None
    path = paths.LATEST_PRODUCER_ID_BLOCK
    record = _decode(path, data, _ProducerIds)
    first = _int64(path, "block_start", record.block_start)
    last = _int64(path, "block_end", record.block_end)
    if not 0 <= first <= last:
        raise BadRecord(path, f"the block from {first} to {last} is not one")
    return ProducerIdBlock(BrokerId(_int32(path, "broker", record.broker)), first, last)


# ------------------------------------------------------------------------------ access rules


def encode_acls(rules: Iterable[AccessRule]) -> bytes:
    return _encode(
        {
            "version": 1,
            "acls": [
                {
                    "principal": rule.principal,
                    "permissionType": rule.permission_type,
                    "operation": rule.operation,
                    "host": rule.host,
                }
                for rule in rules
            ],
        }
    )


def decode_acls(path: str, data: bytes) -> tuple[AccessRule, ...]:
    rules = _decode(path, data, _Acls).acls
    return tuple(AccessRule(r.principal, r.permissionType, r.operation, r.host) for r in rules)


def encode_acl_change(change: AclChange) -> bytes:
    """Plain text for a literal pattern, JSON for any other."""
    if change.pattern_type == "LITERAL":
        return f"{change.resource_type}:{change.name}".encode()
    return _encode(
        {
            "version": 1,
            "resourceType": change.resource_type,
            "name": change.name,
            "patternType": change.pattern_type,
        }
    )


def decode_acl_change(path: str, data: bytes) -> AclChange:
    """A change below ``/kafka-acl-changes`` (text) or ``/kafka-acl-extended-changes`` (JSON)."""
    if path.startswith(f"{paths.EXTENDED_ACL_CHANGES}/"):
        record = _decode(path, data, _AclChange)
        return AclChange(record.resourceType, record.name, record.patternType)
    try:
        resource_type, separator, name = data.decode().partition(":")
    except UnicodeDecodeError as error:
        raise BadRecord(path, str(error)) from None
    if not separator or not resource_type or not name:
        raise BadRecord(path, f"{data!r} is not TYPE:name")
    return AclChange(resource_type, name)


def encode_delegation_token(token: DelegationToken) -> bytes:
    """Version 3."""
    return _encode(
        {
            "version": 3,
            "owner": _encode_principal(token.owner),
            "tokenRequester": _encode_principal(token.requester),
            "renewers": [_encode_principal(renewer) for renewer in token.renewers],
            "issueTimestamp": token.issue_ms,
            "maxTimestamp": token.max_ms,
            "expiryTimestamp": token.expiry_ms,
            "tokenId": token.token_id,
        }
    )


def decode_delegation_token(path: str, data: bytes) -> DelegationToken:
    """Version 3, and older ones, in which the owner asked for the token."""
    record = _decode(path, data, _Token)
    owner = paths.desanitize(record.owner)
    return DelegationToken(
        record.tokenId,
        owner,
        owner if record.tokenRequester is None else paths.desanitize(record.tokenRequester),
        tuple(paths.desanitize(renewer) for renewer in record.renewers),
        record.issueTimestamp,
        record.maxTimestamp,
        record.expiryTimestamp,
    )


def _encode_principal(principal: str) -> str:
    return paths.sanitize(principal)


def encode_consumer_offset(offset: int) -> bytes:
    return b"%d" % offset


def decode_consumer_offset(path: str, data: bytes) -> int:
    return _decimal(path, data, 2**63 - 1)
