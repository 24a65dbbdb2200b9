"""describe_cluster (API key 60): The cluster id, the controller and the live brokers."""

from kafkalite.protocol.message import Int8, Int16, Int32, Message


class DescribeClusterRequest(Message, frozen=True, kw_only=True):
    """See the module."""

    include_cluster_authorized_operations: bool
    endpoint_type: Int8 = 1


class DescribeClusterResponseBroker(Message, frozen=True, kw_only=True):
    """One element of `brokers`."""

    broker_id: Int32
    host: str
    port: Int32
    rack: str | None = None


class DescribeClusterResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32
    error_code: Int16
    error_message: str | None = None
    endpoint_type: Int8 = 1
    cluster_id: str
    controller_id: Int32 = -1
    brokers: list[DescribeClusterResponseBroker]
    cluster_authorized_operations: Int32 = -(2**31)
