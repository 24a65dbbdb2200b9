"""init_producer_id (API key 22): Hand out a producer id and epoch for idempotent producing (KIP-98)."""

from kafkalite.protocol.message import Int16, Int32, Int64, Message


class InitProducerIdRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    transactional_id: str | None = None
    """None for a producer that is only idempotent."""
    transaction_timeout_ms: Int32
    """After which the coordinator aborts a transaction left open."""
    producer_id: Int64 = -1
    """The id that the producer has and wants a new epoch for; -1 for none."""
    producer_epoch: Int16 = -1


class InitProducerIdResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32
    error_code: Int16
    producer_id: Int64 = -1
    producer_epoch: Int16
    """Higher than of any earlier producer with this id."""
