"""All APIs: which request and response belong together, and what may be asked of whom.

One entry an API. The server routes by it, the client types its answers by it, and `GET /v1`
prints it, so that whoever writes a client in another language reads the same facts that ours
are built from.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from kafkalite.common import ZERO_UUID
from kafkalite.protocol import (
    allocate_producer_ids,
    controlled_shutdown,
    create_topics,
    delete_groups,
    describe_cluster,
    describe_configs,
    describe_groups,
    fetch,
    find_coordinator,
    heartbeat,
    init_producer_id,
    join_group,
    leader_and_isr,
    leave_group,
    list_groups,
    list_offsets,
    metadata,
    offset_commit,
    offset_delete,
    offset_fetch,
    offset_for_leader_epoch,
    produce,
    stop_replica,
    sync_group,
    update_metadata,
)
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.message import Message

E = ErrorCode

ANY_API_ERRORS: Final = (E.UNKNOWN_SERVER_ERROR, E.UNSUPPORTED_VERSION, E.INVALID_REQUEST)
"""What every API may answer."""

_COORDINATOR_ERRORS: Final = (
    E.COORDINATOR_LOAD_IN_PROGRESS,
    E.COORDINATOR_NOT_AVAILABLE,
    E.NOT_COORDINATOR,
    E.INVALID_GROUP_ID,
    E.GROUP_AUTHORIZATION_FAILED,
)
"""What every API of a group's coordinator may answer."""


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """One API, reached at `POST /v1/<name>`."""

    name: str
    """Kafka's name in snake_case."""
    key: int
    """Kafka's API key."""
    request: type[Message]
    response: type[Message]
    errors: tuple[ErrorCode, ...]
    """What it may answer, at the top or per item, besides :data:`ANY_API_ERRORS`."""
    read_only: bool = False
    """Changes nothing, so `GET` with query parameters serves it too."""
    controller_only: bool = False
    """Another broker than the active controller answers NOT_CONTROLLER."""
    inter_broker: bool = False
    """Meant for brokers and the controller among themselves, not for clients."""

    @property
    def summary(self) -> str:
        """One line that says what the API is for."""
        doc = inspect.getdoc(inspect.getmodule(self.request)) or ""
        return doc.partition("\n\n")[0].partition(": ")[2]

    def describe(self) -> dict[str, Any]:
        """Everything above as JSON values, with the fields of both messages: for `GET /v1`."""
        return {
            "name": self.name,
            "api_key": self.key,
            "summary": self.summary,
            "methods": ["GET", "POST"] if self.read_only else ["POST"],
            "controller_only": self.controller_only,
            "inter_broker": self.inter_broker,
            "request": _fields(self.request),
            "response": _fields(self.response),
            "errors": [{"code": int(e), "name": e.name} for e in (*ANY_API_ERRORS, *self.errors)],
        }


_INTEGERS: Final = {2**7 - 1: "int8", 2**15 - 1: "int16", 2**31 - 1: "int32", 2**63 - 1: "int64"}


def _fields(struct: type[msgspec.Struct]) -> list[dict[str, Any]]:
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    fields = []
    for field in info.fields:
        described = {"name": field.encode_name, **_type(field.type), "required": field.required}
        if not field.required:
            default = field.default
            if default == ZERO_UUID:
                described["type"] = "uuid"
            if default is msgspec.NODEFAULT:
                assert field.default_factory is not msgspec.NODEFAULT
                default = field.default_factory()
            described["default"] = msgspec.to_builtins(default)
        fields.append(described)
    return fields


def _type(info: msgspec.inspect.Type) -> dict[str, Any]:
    """Say a field's type in the words of the reference: `type`, and what hangs on it."""
    match info:
        case msgspec.inspect.UnionType(types=types):
            (other,) = (t for t in types if not isinstance(t, msgspec.inspect.NoneType))
            return {**_type(other), "nullable": True}
        case msgspec.inspect.ListType(item_type=item):
            return {"type": "array", "items": _type(item)}
        case msgspec.inspect.StructType(cls=cls):
            return {"type": "struct", "fields": _fields(cls)}
        case msgspec.inspect.IntType(le=le):
            return {"type": _INTEGERS[le] if le is not None else "int"}
        case msgspec.inspect.StrType():
            return {"type": "string"}
        case msgspec.inspect.BoolType():
            return {"type": "bool"}
        case msgspec.inspect.FloatType():
            return {"type": "float64"}
        case _:
            return {"type": "bytes"}


def _table(*apis: Api) -> Mapping[str, Api]:
    return MappingProxyType({api.name: api for api in apis})


APIS: Final[Mapping[str, Api]] = _table(
    Api(
        name="produce",
        key=0,
        request=produce.ProduceRequest,
        response=produce.ProduceResponse,
        errors=(
            E.CORRUPT_MESSAGE,
            E.UNKNOWN_TOPIC_OR_PARTITION,
            E.NOT_LEADER_OR_FOLLOWER,
            E.REQUEST_TIMED_OUT,
            E.MESSAGE_TOO_LARGE,
            E.INVALID_TOPIC_EXCEPTION,
            E.RECORD_LIST_TOO_LARGE,
            E.NOT_ENOUGH_REPLICAS,
            E.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            E.INVALID_REQUIRED_ACKS,
            E.TOPIC_AUTHORIZATION_FAILED,
            E.CLUSTER_AUTHORIZATION_FAILED,
            E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            E.INVALID_TIMESTAMP,
            E.UNSUPPORTED_FOR_MESSAGE_FORMAT,
            E.OUT_OF_ORDER_SEQUENCE_NUMBER,
            E.DUPLICATE_SEQUENCE_NUMBER,
            E.INVALID_PRODUCER_EPOCH,
            E.INVALID_TXN_STATE,
            E.INVALID_PRODUCER_ID_MAPPING,
            E.TRANSACTION_ABORTABLE,
            E.KAFKA_STORAGE_ERROR,
            E.UNSUPPORTED_COMPRESSION_TYPE,
            E.INVALID_RECORD,
        ),
    ),
    Api(
        name="fetch",
        key=1,
        request=fetch.FetchRequest,
        response=fetch.FetchResponse,
        errors=(
            E.OFFSET_OUT_OF_RANGE,
            E.UNKNOWN_TOPIC_OR_PARTITION,
            E.UNKNOWN_TOPIC_ID,
            E.INCONSISTENT_TOPIC_ID,
            E.NOT_LEADER_OR_FOLLOWER,
            E.TOPIC_AUTHORIZATION_FAILED,
            E.FENCED_LEADER_EPOCH,
            E.UNKNOWN_LEADER_EPOCH,
            E.STALE_BROKER_EPOCH,
            E.KAFKA_STORAGE_ERROR,
            E.CORRUPT_MESSAGE,
            E.UNSUPPORTED_COMPRESSION_TYPE,
            E.OFFSET_MOVED_TO_TIERED_STORAGE,
            E.FETCH_SESSION_ID_NOT_FOUND,
            E.INVALID_FETCH_SESSION_EPOCH,
            E.FETCH_SESSION_TOPIC_ID_ERROR,
        ),
    ),
    Api(
        name="list_offsets",
        key=2,
        request=list_offsets.ListOffsetsRequest,
        response=list_offsets.ListOffsetsResponse,
        read_only=True,
        errors=(
            E.UNKNOWN_TOPIC_OR_PARTITION,
            E.NOT_LEADER_OR_FOLLOWER,
            E.LEADER_NOT_AVAILABLE,
            E.OFFSET_NOT_AVAILABLE,
            E.TOPIC_AUTHORIZATION_FAILED,
            E.FENCED_LEADER_EPOCH,
            E.UNKNOWN_LEADER_EPOCH,
            E.UNSUPPORTED_FOR_MESSAGE_FORMAT,
            E.KAFKA_STORAGE_ERROR,
        ),
    ),
    Api(
        name="metadata",
        key=3,
        request=metadata.MetadataRequest,
        response=metadata.MetadataResponse,
        read_only=True,
        errors=(
            E.UNKNOWN_TOPIC_OR_PARTITION,
            E.UNKNOWN_TOPIC_ID,
            E.LEADER_NOT_AVAILABLE,
            E.LISTENER_NOT_FOUND,
            E.INVALID_TOPIC_EXCEPTION,
            E.TOPIC_AUTHORIZATION_FAILED,
            E.INVALID_REPLICATION_FACTOR,
            E.THROTTLING_QUOTA_EXCEEDED,
        ),
    ),
    Api(
        name="leader_and_isr",
        key=4,
        request=leader_and_isr.LeaderAndIsrRequest,
        response=leader_and_isr.LeaderAndIsrResponse,
        inter_broker=True,
        errors=(
            E.STALE_BROKER_EPOCH,
            E.STALE_CONTROLLER_EPOCH,
            E.CLUSTER_AUTHORIZATION_FAILED,
            E.KAFKA_STORAGE_ERROR,
            E.INCONSISTENT_TOPIC_ID,
            E.UNKNOWN_TOPIC_OR_PARTITION,
        ),
    ),
    Api(
        name="stop_replica",
        key=5,
        request=stop_replica.StopReplicaRequest,
        response=stop_replica.StopReplicaResponse,
        inter_broker=True,
        errors=(
            E.STALE_BROKER_EPOCH,
            E.STALE_CONTROLLER_EPOCH,
            E.CLUSTER_AUTHORIZATION_FAILED,
            E.FENCED_LEADER_EPOCH,
            E.KAFKA_STORAGE_ERROR,
        ),
    ),
    Api(
        name="update_metadata",
        key=6,
        request=update_metadata.UpdateMetadataRequest,
        response=update_metadata.UpdateMetadataResponse,
        inter_broker=True,
        errors=(E.STALE_BROKER_EPOCH, E.STALE_CONTROLLER_EPOCH, E.CLUSTER_AUTHORIZATION_FAILED),
    ),
    Api(
        name="controlled_shutdown",
        key=7,
        request=controlled_shutdown.ControlledShutdownRequest,
        response=controlled_shutdown.ControlledShutdownResponse,
        controller_only=True,
        inter_broker=True,
        errors=(
            E.NOT_CONTROLLER,
            E.STALE_CONTROLLER_EPOCH,
            E.STALE_BROKER_EPOCH,
            E.BROKER_NOT_AVAILABLE,
            E.CLUSTER_AUTHORIZATION_FAILED,
        ),
    ),
    Api(
        name="offset_commit",
        key=8,
        request=offset_commit.OffsetCommitRequest,
        response=offset_commit.OffsetCommitResponse,
        errors=(
            *_COORDINATOR_ERRORS,
            E.UNKNOWN_MEMBER_ID,
            E.FENCED_INSTANCE_ID,
            E.ILLEGAL_GENERATION,
            E.REBALANCE_IN_PROGRESS,
            E.OFFSET_METADATA_TOO_LARGE,
            E.INVALID_COMMIT_OFFSET_SIZE,
            E.UNKNOWN_TOPIC_OR_PARTITION,
            E.TOPIC_AUTHORIZATION_FAILED,
        ),
    ),
    Api(
        name="offset_fetch",
        key=9,
        request=offset_fetch.OffsetFetchRequest,
        response=offset_fetch.OffsetFetchResponse,
        read_only=True,
        errors=(
            *_COORDINATOR_ERRORS,
            E.TOPIC_AUTHORIZATION_FAILED,
            E.UNSTABLE_OFFSET_COMMIT,
        ),
    ),
    Api(
        name="find_coordinator",
        key=10,
        request=find_coordinator.FindCoordinatorRequest,
        response=find_coordinator.FindCoordinatorResponse,
        errors=(
            E.COORDINATOR_NOT_AVAILABLE,
            E.INVALID_GROUP_ID,
            E.GROUP_AUTHORIZATION_FAILED,
            E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
    ),
    Api(
        name="join_group",
        key=11,
        request=join_group.JoinGroupRequest,
        response=join_group.JoinGroupResponse,
        errors=(
            *_COORDINATOR_ERRORS,
            E.INVALID_SESSION_TIMEOUT,
            E.MEMBER_ID_REQUIRED,
            E.UNKNOWN_MEMBER_ID,
            E.FENCED_INSTANCE_ID,
            E.INCONSISTENT_GROUP_PROTOCOL,
            E.GROUP_MAX_SIZE_REACHED,
            E.REBALANCE_IN_PROGRESS,
        ),
    ),
    Api(
        name="heartbeat",
        key=12,
        request=heartbeat.HeartbeatRequest,
        response=heartbeat.HeartbeatResponse,
        errors=(
            *_COORDINATOR_ERRORS,
            E.UNKNOWN_MEMBER_ID,
            E.FENCED_INSTANCE_ID,
            E.ILLEGAL_GENERATION,
            E.REBALANCE_IN_PROGRESS,
        ),
    ),
    Api(
        name="leave_group",
        key=13,
        request=leave_group.LeaveGroupRequest,
        response=leave_group.LeaveGroupResponse,
        errors=(
            *_COORDINATOR_ERRORS,
            E.UNKNOWN_MEMBER_ID,
            E.FENCED_INSTANCE_ID,
        ),
    ),
    Api(
        name="sync_group",
        key=14,
        request=sync_group.SyncGroupRequest,
        response=sync_group.SyncGroupResponse,
        errors=(
            *_COORDINATOR_ERRORS,
            E.UNKNOWN_MEMBER_ID,
            E.FENCED_INSTANCE_ID,
            E.ILLEGAL_GENERATION,
            E.REBALANCE_IN_PROGRESS,
            E.INCONSISTENT_GROUP_PROTOCOL,
        ),
    ),
    Api(
        name="describe_groups",
        key=15,
        request=describe_groups.DescribeGroupsRequest,
        response=describe_groups.DescribeGroupsResponse,
        read_only=True,
        errors=(*_COORDINATOR_ERRORS,),
    ),
    Api(
        name="list_groups",
        key=16,
        request=list_groups.ListGroupsRequest,
        response=list_groups.ListGroupsResponse,
        read_only=True,
        errors=(
            E.COORDINATOR_NOT_AVAILABLE,
            E.COORDINATOR_LOAD_IN_PROGRESS,
            E.CLUSTER_AUTHORIZATION_FAILED,
        ),
    ),
    Api(
        name="create_topics",
        key=19,
        request=create_topics.CreateTopicsRequest,
        response=create_topics.CreateTopicsResponse,
        controller_only=True,
        errors=(
            E.TOPIC_ALREADY_EXISTS,
            E.INVALID_TOPIC_EXCEPTION,
            E.INVALID_PARTITIONS,
            E.INVALID_REPLICATION_FACTOR,
            E.INVALID_REPLICA_ASSIGNMENT,
            E.INVALID_CONFIG,
            E.POLICY_VIOLATION,
            E.NOT_CONTROLLER,
            E.REQUEST_TIMED_OUT,
            E.TOPIC_AUTHORIZATION_FAILED,
            E.CLUSTER_AUTHORIZATION_FAILED,
            E.THROTTLING_QUOTA_EXCEEDED,
        ),
    ),
    Api(
        name="init_producer_id",
        key=22,
        request=init_producer_id.InitProducerIdRequest,
        response=init_producer_id.InitProducerIdResponse,
        errors=(
            E.COORDINATOR_LOAD_IN_PROGRESS,
            E.COORDINATOR_NOT_AVAILABLE,
            E.NOT_COORDINATOR,
            E.INVALID_PRODUCER_EPOCH,
            E.PRODUCER_FENCED,
            E.INVALID_TRANSACTION_TIMEOUT,
            E.CONCURRENT_TRANSACTIONS,
            E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            E.CLUSTER_AUTHORIZATION_FAILED,
        ),
    ),
    Api(
        name="offset_for_leader_epoch",
        key=23,
        request=offset_for_leader_epoch.OffsetForLeaderEpochRequest,
        response=offset_for_leader_epoch.OffsetForLeaderEpochResponse,
        read_only=True,
        errors=(
            E.FENCED_LEADER_EPOCH,
            E.UNKNOWN_LEADER_EPOCH,
            E.NOT_LEADER_OR_FOLLOWER,
            E.UNKNOWN_TOPIC_OR_PARTITION,
            E.TOPIC_AUTHORIZATION_FAILED,
            E.KAFKA_STORAGE_ERROR,
        ),
    ),
    Api(
        name="describe_configs",
        key=32,
        request=describe_configs.DescribeConfigsRequest,
        response=describe_configs.DescribeConfigsResponse,
        read_only=True,
        errors=(
            E.TOPIC_AUTHORIZATION_FAILED,
            E.CLUSTER_AUTHORIZATION_FAILED,
            E.UNKNOWN_TOPIC_OR_PARTITION,
            E.INVALID_TOPIC_EXCEPTION,
        ),
    ),
    Api(
        name="delete_groups",
        key=42,
        request=delete_groups.DeleteGroupsRequest,
        response=delete_groups.DeleteGroupsResponse,
        errors=(
            *_COORDINATOR_ERRORS,
            E.NON_EMPTY_GROUP,
            E.GROUP_ID_NOT_FOUND,
        ),
    ),
    Api(
        name="offset_delete",
        key=47,
        request=offset_delete.OffsetDeleteRequest,
        response=offset_delete.OffsetDeleteResponse,
        errors=(
            *_COORDINATOR_ERRORS,
            E.NON_EMPTY_GROUP,
            E.GROUP_ID_NOT_FOUND,
            E.GROUP_SUBSCRIBED_TO_TOPIC,
            E.UNKNOWN_TOPIC_OR_PARTITION,
            E.TOPIC_AUTHORIZATION_FAILED,
        ),
    ),
    Api(
        name="describe_cluster",
        key=60,
        request=describe_cluster.DescribeClusterRequest,
        response=describe_cluster.DescribeClusterResponse,
        read_only=True,
        errors=(E.UNSUPPORTED_ENDPOINT_TYPE, E.MISMATCHED_ENDPOINT_TYPE),
    ),
    Api(
        name="allocate_producer_ids",
        key=67,
        request=allocate_producer_ids.AllocateProducerIdsRequest,
        response=allocate_producer_ids.AllocateProducerIdsResponse,
        controller_only=True,
        inter_broker=True,
        errors=(
            E.NOT_CONTROLLER,
            E.STALE_BROKER_EPOCH,
            E.BROKER_ID_NOT_REGISTERED,
            E.CLUSTER_AUTHORIZATION_FAILED,
        ),
    ),
)
"""Every API this version serves, by name."""

_BY_REQUEST: Final[Mapping[type[Message], Api]] = MappingProxyType(
    {api.request: api for api in APIS.values()}
)


def api_of(request_type: type[Message]) -> Api:
    """Return the API whose request ``request_type`` is. Raises KeyError where it is none."""
    return _BY_REQUEST[request_type]
