"""allocate_producer_ids (API key 67): A broker asks the controller for a block of producer ids."""

from kafkalite.protocol.message import Int16, Int32, Int64, Message


class AllocateProducerIdsRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    broker_id: Int32
    broker_epoch: Int64 = -1
    """The epoch of the broker's present registration; another gets STALE_BROKER_EPOCH."""


class AllocateProducerIdsResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32
    error_code: Int16
    producer_id_start: Int64
    """The first id of the block."""
    producer_id_len: Int32
    """How many ids the block has."""
