"""allocate_producer_ids (API key 67): A broker asks the controller for a block of producer ids."""

from kafkalite.protocol.message import Int16, Int32, Int64, Message


class AllocateProducerIdsRequest(Message, frozen=True, kw_only=True):
    """See the module."""

    broker_id: Int32
    broker_epoch: Int64 = -1


class AllocateProducerIdsResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32
    error_code: Int16
    producer_id_start: Int64
    producer_id_len: Int32
