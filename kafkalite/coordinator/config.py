"""The broker configs that group coordinators honour, under Kafka's names and with its defaults."""

from __future__ import annotations

from typing import Final

import msgspec

from kafkalite.protocol.compression import Compression

NEW_MEMBER_JOIN_TIMEOUT_MS: Final = 5 * 60 * 1000
"""How long the first join of a member may wait: nobody knows yet whether that member lives on."""


class GroupConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set about groups and their offsets."""

    group_min_session_timeout_ms: int = 6_000
    group_max_session_timeout_ms: int = 1_800_000
    group_initial_rebalance_delay_ms: int = 3_000
    """How long the first join of an empty group waits for others to come."""
    group_max_size: int = 2**31 - 1
    offset_metadata_max_bytes: int = 4_096
    offsets_commit_timeout_ms: int = 5_000
    """How long a commit waits for the replicas in sync."""
    offsets_load_buffer_size: int = 5_242_880
    """Bytes read at once while a partition is loaded."""
    offsets_retention_minutes: int = 10_080
    offsets_retention_check_interval_ms: int = 600_000
    offsets_topic_compression_codec: Compression = Compression.NONE
    offsets_topic_num_partitions: int = 50
    offsets_topic_replication_factor: int = 3
    offsets_topic_segment_bytes: int = 104_857_600

    @property
    def offsets_retention_ms(self) -> int:
        return self.offsets_retention_minutes * 60_000
