"""The errors that clients raise: those of the wire, and the client's own.

An error with a number on the wire is a :class:`~kafkalite.protocol.errors.BrokerError`, named after
Kafka's; this module adds what only a client can find: that nobody answers, that time ran out, that
a position is gone. Those carry ``code`` and ``retriable`` too, so that a caller can treat both alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec

from kafkalite.common import Address, TopicPartition
from kafkalite.protocol.errors import BrokerError, ErrorCode

__all__ = [
    "Attempt",
    "BrokerError",
    "BufferExhaustedError",
    "ClientClosedError",
    "ClientError",
    "ClientTimeoutError",
    "ClusterUnreachableError",
    "CommitFailedError",
    "DeliveryTimeoutError",
    "DeserializationError",
    "ErrorCode",
    "IllegalStateError",
    "LogTruncationError",
    "NoGroupError",
    "NoOffsetForPartitionError",
]


class ClientError(Exception):
    """Something that the client found by itself; never on the wire."""

    code: ClassVar[ErrorCode] = ErrorCode.UNKNOWN_SERVER_ERROR
    """The number of Kafka's that comes nearest."""
    retriable: ClassVar[bool] = False


class ClientClosedError(ClientError):
    """The client was not started, or is stopped."""


class IllegalStateError(ClientError):
    """The call does not fit what was done before (a partition that is not assigned, for example)."""


class NoGroupError(IllegalStateError):
    """The call is about a group's offsets, and the consumer has no `group_id`."""

    code = ErrorCode.INVALID_GROUP_ID


class CommitFailedError(ClientError):
    """The offsets were not committed, and never will be: their partitions are no longer this member's.

    Whoever owns them now begins at the last commit, so what was processed since then is processed again.
    """

    code = ErrorCode.ILLEGAL_GENERATION


class ClientTimeoutError(ClientError, TimeoutError):
    """The time that the caller allowed ran out."""

    code = ErrorCode.REQUEST_TIMED_OUT
    retriable = True


class BufferExhaustedError(ClientTimeoutError):
    """No room in the producer's buffer within `max_block_ms`."""


class DeliveryTimeoutError(ClientTimeoutError):
    """Not acknowledged within `delivery_timeout_ms`.

    Whether the records were appended is unknown if a request with them was sent. ``last_error``
    is what kept them from being acknowledged, where there was something.
    """

    retriable = False

    def __init__(self, message: str, last_error: BaseException | None = None) -> None:
        super().__init__(message)
        self.last_error = last_error


class NoOffsetForPartitionError(ClientError):
    """A partition has no position and `auto_offset_reset` is "none"."""

    code = ErrorCode.OFFSET_OUT_OF_RANGE

    def __init__(self, partitions: Iterable[TopicPartition]) -> None:
        self.partitions = tuple(partitions)
        names = ", ".join(str(partition) for partition in self.partitions)
        super().__init__(
            f'no position for {names}, and auto_offset_reset is "none": seek, or choose another policy'
        )


class LogTruncationError(ClientError):
    """Records before the position were replaced by others: the log was truncated behind the reader."""

    code = ErrorCode.OFFSET_OUT_OF_RANGE

    def __init__(self, partition: TopicPartition, position: int, divergent_offset: int | None) -> None:
        self.partition = partition
        self.position = position
        self.divergent_offset = divergent_offset
        """The first offset that differs, where the leader knows it."""
        where = "at an unknown offset" if divergent_offset is None else f"at offset {divergent_offset}"
        super().__init__(
            f"the log of {partition} was truncated {where}, before the position {position}: "
            "what was read from there on is no longer what the log holds"
        )


class DeserializationError(ClientError):
    """A key or value could not be deserialised; the position stays before that record."""

    def __init__(self, partition: TopicPartition, offset: int, part: str, cause: BaseException) -> None:
        self.partition = partition
        self.offset = offset
        super().__init__(
            f"the {part} of {partition} at offset {offset} could not be deserialised "
            f"({type(cause).__name__}: {cause}); seek past {offset} to go on"
        )


class Attempt(msgspec.Struct, frozen=True):
    """The last attempt to reach one address, and how it ended."""

    address: Address
    error: str
    age_ms: int
    """How long ago it ended."""
    advertised_by: int | None = None
    """The id of the broker that is said to live there; None for a bootstrap address."""


class ClusterUnreachableError(ClientError, ConnectionError):
    """No broker answered. Says what was tried, what the cluster advertises, and one hint."""

    code = ErrorCode.NETWORK_EXCEPTION
    retriable = True

    def __init__(self, message: str, attempts: Sequence[Attempt], advertised: Sequence[str]) -> None:
        self.attempts = tuple(attempts)
        self.advertised = tuple(advertised)
        """The addresses that the cluster told this client to use, as "1 at host:port"."""
        self.hint = hint(self.attempts, self.advertised)
        lines = [message]
        lines += [f"  {a.address}: {a.error} ({a.age_ms / 1000:.1f} s ago)" for a in self.attempts]
        if self.advertised:
            lines.append("  the cluster advertises: broker " + ", broker ".join(self.advertised))
        lines.append(f"  {self.hint}")
        super().__init__("\n".join(lines))


def hint(attempts: Sequence[Attempt], advertised: Sequence[str]) -> str:
    """Name the likeliest reason for ``attempts``, and what to do about it, in one sentence."""
    errors = " ".join(attempt.error.lower() for attempt in attempts)
    if "503" in errors:
        return "a broker answers, but does not serve yet or no more: it starts, stops, or has lost ZooKeeper."
    if "resolve" in errors or "getaddrinfo" in errors or "name or service" in errors:
        return (
            "a host name does not resolve on this machine: check bootstrap_servers and advertised.listeners."
        )
    if advertised:
        return (
            "the cluster was reached before: either its brokers are down, or the addresses it advertises "
            "(advertised.listeners) cannot be reached from this machine."
        )
    if "timed out" in errors or "timeout" in errors:
        return (
            "nothing answers there in time: check the address, a firewall, or whether the broker is paused."
        )
    return "is the cluster running, and is that its address? `kafkalite cluster status` tells both."
