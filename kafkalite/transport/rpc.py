"""Typed calls: a request message in, its API's answer out, over any transport.

Errors come in three kinds, told apart by what the caller may do. :class:`~kafkalite.edge.ConnectionFailed`:
no answer came. :class:`RequestRefused`: the server answered, but the request never reached the
API. :class:`UnreadableAnswer`: the other side is no server of ours. Kafka's own error codes are
inside answers; looking at them is the caller's business.
"""

from __future__ import annotations

from typing import Final, NotRequired, Required, TypedDict, Unpack, overload

import msgspec

from kafkalite.common import Address
from kafkalite.edge import Buffer, HttpReply, Transport
from kafkalite.protocol import codec
from kafkalite.protocol.allocate_producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse
from kafkalite.protocol.api import api_of
from kafkalite.protocol.codec import SchemaError
from kafkalite.protocol.controlled_shutdown import ControlledShutdownRequest, ControlledShutdownResponse
from kafkalite.protocol.create_topics import CreateTopicsRequest, CreateTopicsResponse
from kafkalite.protocol.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from kafkalite.protocol.describe_cluster import DescribeClusterRequest, DescribeClusterResponse
from kafkalite.protocol.describe_configs import DescribeConfigsRequest, DescribeConfigsResponse
from kafkalite.protocol.describe_groups import DescribeGroupsRequest, DescribeGroupsResponse
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.fetch import FetchRequest, FetchResponse
from kafkalite.protocol.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from kafkalite.protocol.heartbeat import HeartbeatRequest, HeartbeatResponse
from kafkalite.protocol.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from kafkalite.protocol.join_group import JoinGroupRequest, JoinGroupResponse
from kafkalite.protocol.leader_and_isr import LeaderAndIsrRequest, LeaderAndIsrResponse
from kafkalite.protocol.leave_group import LeaveGroupRequest, LeaveGroupResponse
from kafkalite.protocol.list_groups import ListGroupsRequest, ListGroupsResponse
from kafkalite.protocol.list_offsets import ListOffsetsRequest, ListOffsetsResponse
from kafkalite.protocol.message import Message
from kafkalite.protocol.metadata import MetadataRequest, MetadataResponse
from kafkalite.protocol.offset_commit import OffsetCommitRequest, OffsetCommitResponse
from kafkalite.protocol.offset_delete import OffsetDeleteRequest, OffsetDeleteResponse
from kafkalite.protocol.offset_fetch import OffsetFetchRequest, OffsetFetchResponse
from kafkalite.protocol.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
)
from kafkalite.protocol.produce import ProduceRequest, ProduceResponse
from kafkalite.protocol.stop_replica import StopReplicaRequest, StopReplicaResponse
from kafkalite.protocol.sync_group import SyncGroupRequest, SyncGroupResponse
from kafkalite.protocol.update_metadata import UpdateMetadataRequest, UpdateMetadataResponse

MSGPACK: Final = "application/msgpack"
JSON: Final = "application/json"


class RequestRefused(Exception):
    """The server answered with another status than 200: the request never reached the API."""

    def __init__(
        self, address: Address, *, status: int, error_code: int, error: str, field: str | None, message: str
    ) -> None:
        where = f" (field {field})" if field else ""
        super().__init__(f"{address} answered {status} {error}: {message}{where}")
        self.address = address
        self.status = status
        """400 and 413 say that the request is wrong, 503 that the server is starting or stopping."""
        self.error_code = error_code
        """Kafka's number for it, UNKNOWN_SERVER_ERROR where the answer gives none."""
        self.error = error
        self.field = field
        """The field that does not fit the schema, where it is one."""
        self.message = message


class UnreadableAnswer(Exception):
    """The answer has status 200 but is not the message that it should be."""

    def __init__(self, address: Address, api: str, reason: str) -> None:
        super().__init__(f"{address} gave an answer to {api} that cannot be read: {reason}")
        self.address = address
        self.api = api
        self.reason = reason


class Options(TypedDict):
    """What :func:`ask` takes besides the request."""

    lane: Required[str]
    """The connection to use: one a purpose."""
    timeout_ms: Required[int]
    client_id: NotRequired[str]
    """Who asks, for the server's logs and metrics."""
    correlation_id: NotRequired[str]
    """Echoed in the answer and written to the server's request log."""
    cause: NotRequired[str | None]
    """The id of the journal's event that led to this request."""


@overload
async def ask(
    transport: Transport, address: Address, request: ProduceRequest, **options: Unpack[Options]
) -> ProduceResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: FetchRequest, **options: Unpack[Options]
) -> FetchResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: ListOffsetsRequest, **options: Unpack[Options]
) -> ListOffsetsResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: MetadataRequest, **options: Unpack[Options]
) -> MetadataResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: LeaderAndIsrRequest, **options: Unpack[Options]
) -> LeaderAndIsrResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: StopReplicaRequest, **options: Unpack[Options]
) -> StopReplicaResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: UpdateMetadataRequest, **options: Unpack[Options]
) -> UpdateMetadataResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: ControlledShutdownRequest, **options: Unpack[Options]
) -> ControlledShutdownResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: CreateTopicsRequest, **options: Unpack[Options]
) -> CreateTopicsResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: InitProducerIdRequest, **options: Unpack[Options]
) -> InitProducerIdResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: OffsetForLeaderEpochRequest, **options: Unpack[Options]
) -> OffsetForLeaderEpochResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: DescribeConfigsRequest, **options: Unpack[Options]
) -> DescribeConfigsResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: DescribeClusterRequest, **options: Unpack[Options]
) -> DescribeClusterResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: AllocateProducerIdsRequest, **options: Unpack[Options]
) -> AllocateProducerIdsResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: DeleteGroupsRequest, **options: Unpack[Options]
) -> DeleteGroupsResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: DescribeGroupsRequest, **options: Unpack[Options]
) -> DescribeGroupsResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: FindCoordinatorRequest, **options: Unpack[Options]
) -> FindCoordinatorResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: HeartbeatRequest, **options: Unpack[Options]
) -> HeartbeatResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: JoinGroupRequest, **options: Unpack[Options]
) -> JoinGroupResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: LeaveGroupRequest, **options: Unpack[Options]
) -> LeaveGroupResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: ListGroupsRequest, **options: Unpack[Options]
) -> ListGroupsResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: OffsetCommitRequest, **options: Unpack[Options]
) -> OffsetCommitResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: OffsetDeleteRequest, **options: Unpack[Options]
) -> OffsetDeleteResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: OffsetFetchRequest, **options: Unpack[Options]
) -> OffsetFetchResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: SyncGroupRequest, **options: Unpack[Options]
) -> SyncGroupResponse: ...
@overload
async def ask(
    transport: Transport, address: Address, request: Message, **options: Unpack[Options]
) -> Message: ...
async def ask(
    transport: Transport,
    address: Address,
    request: Message,
    *,
    lane: str,
    timeout_ms: int,
    client_id: str | None = None,
    correlation_id: str | None = None,
    cause: str | None = None,
) -> Message:
    """Send ``request`` to its API at ``address`` and return the answer.

    The request's type says which API, and the answer has that API's response type. Raises
    ConnectionFailed, RequestRefused, UnreadableAnswer.
    """
    api = api_of(type(request))
    headers = {"Content-Type": MSGPACK, "Accept": MSGPACK}
    if client_id:
        headers["X-Client-Id"] = client_id
    if cause is not None:
        headers["X-Cause-Id"] = cause
    if correlation_id:
        headers["X-Correlation-Id"] = correlation_id
    reply = await transport.ask(
        address,
        "POST",
        f"/v1/{api.name}",
        headers=headers,
        body=codec.encode(request),
        lane=lane,
        timeout_ms=timeout_ms,
    )
    if reply.status != 200:
        raise _refused(address, reply)
    try:
        return codec.decode(api.response, _body(reply))
    except SchemaError as error:
        raise UnreadableAnswer(address, api.name, str(error)) from None


class _Refusal(msgspec.Struct, frozen=True):
    """The body of every answer but 200 (CONTRACTS section 1)."""

    error_code: int = ErrorCode.UNKNOWN_SERVER_ERROR
    error: str = ""
    field: str | None = None
    message: str | None = ""


def _body(reply: HttpReply) -> Buffer:
    return reply.body[0] if len(reply.body) == 1 else b"".join(reply.body)


def _refused(address: Address, reply: HttpReply) -> RequestRefused:
    """Read what the server says; a proxy in between may say it in another form."""
    body = _body(reply)
    content_type = reply.headers.get("content-type", "").partition(";")[0].strip()
    try:
        if content_type == JSON:
            refusal = msgspec.json.decode(body, type=_Refusal)
        else:
            refusal = msgspec.msgpack.decode(body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = bytes(body[:200]).decode("utf-8", "replace").strip()
        refusal = _Refusal(message=text or "no further words")
    return RequestRefused(
        address,
        status=reply.status,
        error_code=refusal.error_code,
        error=refusal.error,
        field=refusal.field,
        message=refusal.message or "",
    )
