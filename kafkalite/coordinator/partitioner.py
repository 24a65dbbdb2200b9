"""Which partition of `__consumer_offsets` a group lives in: Kafka's own choice, so that its tools agree."""

from __future__ import annotations


def java_hash(text: str) -> int:
    """Java's `String.hashCode`: over UTF-16 units, as a signed 32-bit number."""
    value = 0
    data = text.encode("utf-16-be", "surrogatepass")
    for index in range(0, len(data), 2):
        value = (31 * value + (data[index] << 8) + data[index + 1]) & 0xFFFFFFFF
    return value - 2**32 if value >= 2**31 else value


def partition_for(group_id: str, partitions: int) -> int:
    """The partition of ``group_id`` among ``partitions`` (at least 1)."""
    value = java_hash(group_id)
    # Kafka's Utils.abs: the one number without a positive counterpart becomes 0.
    return (0 if value == -(2**31) else abs(value)) % partitions
