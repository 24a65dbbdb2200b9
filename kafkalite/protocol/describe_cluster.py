"""describe_cluster (API key 60): The cluster id, the controller and the live brokers."""

from kafkalite.protocol.message import Int8, Int16, Int32, Message


class DescribeClusterRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    include_cluster_authorized_operations: bool
    endpoint_type: Int8 = 1
    """1 brokers, 2 controllers (which a ZooKeeper-era cluster does not have apart)."""


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
    """-1 where no controller is known."""
    brokers: list[DescribeClusterResponseBroker]
    cluster_authorized_operations: Int32 = -(2**31)
    """A bit for each operation; -2**31 where it was not asked for."""
