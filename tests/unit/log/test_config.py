"""Topic configs: classes, types, bounds, and where a value comes from."""

from __future__ import annotations

import pytest

from kafkalite.log.config import LONG_MAX, TOPIC_CONFIGS, LogConfig, format_value
from kafkalite.protocol.errors import InvalidConfigError
from kafkalite.protocol.record_batch import TimestampType


def test_defaults_are_kafkas() -> None:
    config = LogConfig.parse({})
    assert config == LogConfig()
    assert (config.segment_bytes, config.retention_ms, config.max_message_bytes) == (
        2**30,
        604_800_000,
        1_048_588,
    )


def test_the_dataclass_defaults_agree_with_the_table() -> None:
    for name, attribute in {
        "segment.bytes": "segment_bytes",
        "segment.index.bytes": "segment_index_bytes",
        "index.interval.bytes": "index_interval_bytes",
        "flush.messages": "flush_messages",
        "min.insync.replicas": "min_insync_replicas",
        "file.delete.delay.ms": "file_delete_delay_ms",
    }.items():
        assert getattr(LogConfig(), attribute) == TOPIC_CONFIGS[name].default


@pytest.mark.parametrize("name", sorted(TOPIC_CONFIGS))
def test_every_default_is_accepted(name: str) -> None:
    LogConfig.parse({name: format_value(TOPIC_CONFIGS[name].default)})


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("retention.msec", "1", "unknown topic config retention.msec; did you mean retention.ms?"),
        ("segment.bytes", "13", "segment.bytes=13: must be at least 14"),
        ("segment.bytes", "many", "must be a whole number of 32-bit"),
        ("segment.bytes", str(2**31), "must be a whole number of 32-bit"),
        ("retention.ms", str(2**63), "must be a whole number of 64-bit"),
        ("retention.ms", "-2", "must be at least -1"),
        ("unclean.leader.election.enable", "yes", "must be true or false"),
        ("message.timestamp.type", "createtime", "must be one of CreateTime, LogAppendTime"),
        ("min.cleanable.dirty.ratio", "2", "must be between 0 and 1"),
        ("min.cleanable.dirty.ratio", "half", "must be a number"),
        ("compression.type", "gzip", "not honoured by this version; it honours producer"),
        ("compression.type", "zip", "must be one of"),
        ("cleanup.policy", "compact", "not honoured by this version; it honours delete"),
        ("cleanup.policy", "shred", "must be compact, delete or both"),
        ("preallocate", "true", "not honoured by this version; leave it at its default, false"),
        ("delete.retention.ms", "1", "not honoured by this version"),
        ("leader.replication.throttled.replicas", "0:1,x", "must be empty"),
        ("leader.replication.throttled.replicas", "0:1", "not honoured"),
        ("compression.gzip.level", "0", "must be 1 to 9, or -1"),
    ],
)
def test_bad_values_say_which_why_and_what_is_allowed(name: str, text: str, why: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        LogConfig.parse({name: text})
    assert name in caught.value.message
    assert why in caught.value.message


def test_a_topics_own_value_wins_over_the_brokers() -> None:
    defaults = LogConfig.from_server({"log.retention.hours": "1", "log.segment.bytes": "5000"})
    config = LogConfig.parse({"segment.bytes": "6000"}, defaults)
    assert (config.segment_bytes, config.retention_ms) == (6000, 3_600_000)


@pytest.mark.parametrize(
    ("properties", "retention_ms"),
    [
        ({"log.retention.hours": "2"}, 7_200_000),
        ({"log.retention.hours": "2", "log.retention.minutes": "3"}, 180_000),
        ({"log.retention.hours": "2", "log.retention.minutes": "3", "log.retention.ms": "4"}, 4),
        ({"log.retention.hours": "-1"}, -1),
        ({"unrelated": "x"}, 604_800_000),
    ],
)
def test_the_finest_unit_that_is_set_wins(properties: dict[str, str], retention_ms: int) -> None:
    assert LogConfig.from_server(properties).retention_ms == retention_ms


def test_a_bad_server_property_is_named_as_it_was_written() -> None:
    with pytest.raises(InvalidConfigError, match=r"log\.roll\.hours=0: must be at least 1"):
        LogConfig.from_server({"log.roll.hours": "0"})
    with pytest.raises(InvalidConfigError, match=r"log\.roll\.hours=soon: must be a whole number"):
        LogConfig.from_server({"log.roll.hours": "soon"})


def test_the_deprecated_difference_bounds_both_sides_that_are_not_set() -> None:
    config = LogConfig.parse(
        {"message.timestamp.difference.max.ms": "5", "message.timestamp.after.max.ms": "9"}
    )
    assert (config.timestamp_before_max_ms, config.timestamp_after_max_ms) == (5, 9)
    assert LogConfig().timestamp_before_max_ms == LONG_MAX


def test_log_append_time() -> None:
    config = LogConfig.parse({"message.timestamp.type": "LogAppendTime"})
    assert config.timestamp_type is TimestampType.LOG_APPEND_TIME


def test_what_stands_in_a_znode_is_taken_as_far_as_it_is_right() -> None:
    config, problems = LogConfig.parse_leniently(
        {"retention.ms": "5", "preallocate": "true", "colour": "red", "segment.bytes": "1"}
    )
    assert config.retention_ms == 5
    assert config.segment_bytes == LogConfig().segment_bytes
    assert [problem.split("=")[0].split(";")[0] for problem in problems] == [
        "unknown topic config colour",
        "preallocate",
        "segment.bytes",
    ]
