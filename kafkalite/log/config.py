"""The configuration of a log: every topic-level config of Kafka, and what we do with each.

A name is in one of three classes. *Honoured*: it does what Kafka says. *Known but not honoured by
this version*: accepted at its default only, since a setting without effect would be a lie.
*Unknown*: refused, with the nearest name. Some honoured configs take only part of Kafka's values
so far (`cleanup.policy` without `compact`); the others are refused like a config not honoured.

The effective value of a topic: its own override, else the server property (the finest unit that
is set wins: milliseconds, minutes, hours), else the default.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from kafkalite.protocol.errors import InvalidConfigError
from kafkalite.protocol.record_batch import TimestampType

Value: TypeAlias = int | float | bool | str | tuple[str, ...]

LONG_MAX: Final = 2**63 - 1
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000


class ConfigType(Enum):
    """Kafka's types of config values; the number is `describe_configs`' own."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    LONG = 5
    DOUBLE = 6
    LIST = 7


@dataclass(frozen=True, slots=True)
class ServerProperty:
    """A broker-wide default of a topic config, in its own unit."""

    name: str
    unit_ms: int = 1
    """Milliseconds one unit of this property stands for; 1 also where it is no time at all."""
    default: int | None = None
    """The property's own default, where it differs in unit from the topic config's."""


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """One topic-level config."""

    name: str
    type: ConfigType
    default: Value
    doc: str
    server_properties: tuple[ServerProperty, ...] = ()
    """Broker-wide defaults, most specific unit first."""
    allowed: str = ""
    """What is allowed, in words, for error messages."""
    is_valid: Callable[[Value], bool] = field(default=lambda value: True, repr=False)
    """Kafka's own range of values."""
    is_honoured: bool = True
    honoured_values: frozenset[Value] | None = None
    """The values that this version honours; None for all."""

    def parse(self, text: str) -> Value:
        """Read a value. Raises InvalidConfigError: which, why, what is allowed.

        Also for a value that Kafka knows and this version does not honour.
        """
        value = self._typed(text.strip())
        if not self.is_valid(value):
            raise InvalidConfigError(f"{self.name}={text}: must be {self.allowed}")
        if not self.is_honoured and value != self.default:
            raise InvalidConfigError(
                f"{self.name}={text}: known to Kafka but not honoured by this version; "
                f"leave it at its default, {format_value(self.default) or 'empty'}"
            )
        if self.honoured_values is not None and value not in self.honoured_values:
            values = " or ".join(sorted(format_value(known) for known in self.honoured_values))
            raise InvalidConfigError(
                f"{self.name}={text}: known to Kafka but not honoured by this version; it honours {values}"
            )
        return value

    def _typed(self, text: str) -> Value:
        match self.type:
            case ConfigType.BOOLEAN:
                if text.lower() not in ("true", "false"):
                    raise InvalidConfigError(f"{self.name}={text}: must be true or false")
                return text.lower() == "true"
            case ConfigType.INT | ConfigType.LONG:
                limit = 2**31 if self.type is ConfigType.INT else 2**63
                try:
                    number = int(text)
                except ValueError:
                    number = limit
                if not -limit <= number < limit:
                    kind = "32-bit" if limit == 2**31 else "64-bit"
                    raise InvalidConfigError(f"{self.name}={text}: must be a whole number of {kind}")
                return number
            case ConfigType.DOUBLE:
                try:
                    return float(text)
                except ValueError:
                    raise InvalidConfigError(f"{self.name}={text}: must be a number") from None
            case ConfigType.LIST:
                return tuple(item for item in (part.strip() for part in text.split(",")) if item)
            case ConfigType.STRING:
                return text


def format_value(value: Value) -> str:
    """Write a value as Kafka's tools print it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def _at_least(low: int) -> tuple[str, Callable[[Value], bool]]:
    return f"at least {low}", lambda value: isinstance(value, int) and value >= low


def _between(low: float, high: float) -> tuple[str, Callable[[Value], bool]]:
    def holds(value: Value) -> bool:
        return isinstance(value, (int, float)) and low <= value <= high

    return f"between {low} and {high}", holds


def _one_of(*values: str) -> tuple[str, Callable[[Value], bool]]:
    return f"one of {', '.join(values)}", lambda value: value in values


def _is_policy(value: Value) -> bool:
    return isinstance(value, tuple) and bool(value) and set(value) <= {"compact", "delete"}


def _is_gzip_level(value: Value) -> bool:
    return value == -1 or (isinstance(value, int) and 1 <= value <= 9)


def _are_throttled_replicas(value: Value) -> bool:
    if not isinstance(value, tuple):
        return False
    if value == ("*",):
        return True
    return all(
        len(parts := replica.split(":")) == 2 and all(part.isdecimal() for part in parts) for replica in value
    )


_THROTTLED: Final = ("empty, * or partition:broker,…", _are_throttled_replicas)
_ANY: Final[tuple[str, Callable[[Value], bool]]] = ("any value", lambda value: True)


def _config(
    name: str,
    type: ConfigType,
    default: Value,
    valid: tuple[str, Callable[[Value], bool]],
    server: str | tuple[ServerProperty, ...] | None,
    doc: str,
    *,
    honoured: bool = True,
    only: frozenset[Value] | None = None,
) -> TopicConfig:
    properties = (ServerProperty(server),) if isinstance(server, str) else server or ()
    return TopicConfig(name, type, default, doc, properties, valid[0], valid[1], honoured, only)


_B, _S, _I, _L, _D, _LIST = (
    ConfigType.BOOLEAN,
    ConfigType.STRING,
    ConfigType.INT,
    ConfigType.LONG,
    ConfigType.DOUBLE,
    ConfigType.LIST,
)

_ALL: Final = (
    _config(
        "cleanup.policy", _LIST, ("delete",), ("compact, delete or both", _is_policy), "log.cleanup.policy",
        "What happens to old segments: deleted by age and size, or compacted by key.",
        only=frozenset({("delete",)}),
    ),
    _config(
        "compression.type", _S, "producer",
        _one_of("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"), "compression.type",
        "How batches are stored; producer keeps what the producer chose.", only=frozenset({"producer"}),
    ),
    _config("compression.gzip.level", _I, -1, ("1 to 9, or -1", _is_gzip_level), "compression.gzip.level",
            "Effort of gzip where the broker compresses.", honoured=False),
    _config("compression.lz4.level", _I, 9, _between(1, 17), "compression.lz4.level",
            "Effort of lz4 where the broker compresses.", honoured=False),
    _config("compression.zstd.level", _I, 3, _between(-131072, 22), "compression.zstd.level",
            "Effort of zstd where the broker compresses.", honoured=False),
    _config("delete.retention.ms", _L, 86_400_000, _at_least(0), "log.cleaner.delete.retention.ms",
            "How long a compacted log keeps tombstones.", honoured=False),
    _config("file.delete.delay.ms", _L, 60_000, _at_least(0), "log.segment.delete.delay.ms",
            "How long a file stays on disk after it was deleted from the log."),
    _config("flush.messages", _L, LONG_MAX, _at_least(1), "log.flush.interval.messages",
            "Records after which the log is fsynced, before they are acknowledged."),
    _config("flush.ms", _L, LONG_MAX, _at_least(0),
            (ServerProperty("log.flush.interval.ms"), ServerProperty("log.flush.scheduler.interval.ms")),
            "Age of the oldest record not yet fsynced after which the log is fsynced."),
    _config("follower.replication.throttled.replicas", _LIST, (), _THROTTLED, None,
            "Replicas whose fetching is throttled.", honoured=False),
    _config("leader.replication.throttled.replicas", _LIST, (), _THROTTLED, None,
            "Replicas to which sending is throttled.", honoured=False),
    _config("index.interval.bytes", _I, 4096, _at_least(0), "log.index.interval.bytes",
            "Bytes of log between two entries of the offset index."),
    _config("local.retention.bytes", _L, -2, _at_least(-2), "log.local.retention.bytes",
            "Size of the local part of a tiered log.", honoured=False),
    _config("local.retention.ms", _L, -2, _at_least(-2), "log.local.retention.ms",
            "Age of the local part of a tiered log.", honoured=False),
    _config("max.compaction.lag.ms", _L, LONG_MAX, _at_least(1), "log.cleaner.max.compaction.lag.ms",
            "Age at which a record must be compacted.", honoured=False),
    _config("max.message.bytes", _I, 1_048_588, _at_least(0), "message.max.bytes",
            "Largest record batch, with its header, as it is stored."),
    _config("message.downconversion.enable", _B, True, _ANY, "log.message.downconversion.enable",
            "Whether old clients are served in their format.", honoured=False),
    _config("message.format.version", _S, "3.0-IV1", _ANY, "log.message.format.version",
            "Format of old batches; there is only one here.", honoured=False),
    _config("message.timestamp.type", _S, "CreateTime", _one_of("CreateTime", "LogAppendTime"),
            "log.message.timestamp.type", "Whether the producer or the leader sets the time of a record."),
    _config("message.timestamp.difference.max.ms", _L, LONG_MAX, _at_least(0),
            "log.message.timestamp.difference.max.ms",
            "Deprecated: bound of both before.max and after.max where those are at their default."),
    _config("message.timestamp.before.max.ms", _L, LONG_MAX, _at_least(0),
            "log.message.timestamp.before.max.ms",
            "How far a record's time may lie before the leader's clock."),
    _config("message.timestamp.after.max.ms", _L, LONG_MAX, _at_least(0),
            "log.message.timestamp.after.max.ms",
            "How far a record's time may lie after the leader's clock."),
    _config("min.cleanable.dirty.ratio", _D, 0.5, _between(0, 1), "log.cleaner.min.cleanable.ratio",
            "Share of a log not yet compacted that makes it eligible.", honoured=False),
    _config("min.compaction.lag.ms", _L, 0, _at_least(0), "log.cleaner.min.compaction.lag.ms",
            "Age below which a record is not compacted.", honoured=False),
    _config("min.insync.replicas", _I, 1, _at_least(1), "min.insync.replicas",
            "In-sync replicas without which acks=all is refused."),
    _config("preallocate", _B, False, _ANY, "log.preallocate",
            "Whether segment files are made at full size.", honoured=False),
    _config("remote.storage.enable", _B, False, _ANY, None, "Whether the log is tiered.", honoured=False),
    _config("remote.log.copy.disable", _B, False, _ANY, None,
            "Whether tiering is read-only.", honoured=False),
    _config("remote.log.delete.on.disable", _B, False, _ANY, None,
            "Whether turning tiering off deletes what was tiered.", honoured=False),
    _config("retention.bytes", _L, -1, _ANY, "log.retention.bytes",
            "Size of a partition above which its oldest segments are deleted; -1 for none."),
    _config("retention.ms", _L, 604_800_000, _at_least(-1),
            (ServerProperty("log.retention.ms"),
             ServerProperty("log.retention.minutes", _MINUTE_MS),
             ServerProperty("log.retention.hours", _HOUR_MS, 168)),
            "Age above which a segment is deleted; -1 for none."),
    _config("segment.bytes", _I, 1_073_741_824, _at_least(14), "log.segment.bytes",
            "Size of a segment file above which a new one is begun."),
    _config("segment.index.bytes", _I, 10_485_760, _at_least(4), "log.index.size.max.bytes",
            "Largest offset or time index; a full one ends its segment."),
    _config("segment.jitter.ms", _L, 0, _at_least(0),
            (ServerProperty("log.roll.jitter.ms"), ServerProperty("log.roll.jitter.hours", _HOUR_MS, 0)),
            "Random time taken off segment.ms, so that segments do not all roll at once."),
    _config("segment.ms", _L, 604_800_000, _at_least(1),
            (ServerProperty("log.roll.ms"), ServerProperty("log.roll.hours", _HOUR_MS, 168)),
            "Age of a segment's first record after which a new segment is begun."),
    _config("unclean.leader.election.enable", _B, False, _ANY, "unclean.leader.election.enable",
            "Whether a replica outside the ISR may lead, and records may be lost."),
)  # fmt: skip

TOPIC_CONFIGS: Final[Mapping[str, TopicConfig]] = {config.name: config for config in _ALL}
"""Every topic-level config of Kafka, by name."""

_ATTRIBUTES: Final[Mapping[str, str]] = {
    "segment.bytes": "segment_bytes",
    "segment.ms": "segment_ms",
    "segment.jitter.ms": "segment_jitter_ms",
    "segment.index.bytes": "segment_index_bytes",
    "index.interval.bytes": "index_interval_bytes",
    "flush.messages": "flush_messages",
    "flush.ms": "flush_ms",
    "max.message.bytes": "max_message_bytes",
    "min.insync.replicas": "min_insync_replicas",
    "unclean.leader.election.enable": "unclean_leader_election_enable",
    "retention.ms": "retention_ms",
    "retention.bytes": "retention_bytes",
    "file.delete.delay.ms": "file_delete_delay_ms",
    "cleanup.policy": "cleanup_policy",
}


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The effective configuration of one log (all honoured configs). A change is a new value."""

    segment_bytes: int = 1_073_741_824
    segment_ms: int = 604_800_000
    segment_jitter_ms: int = 0
    segment_index_bytes: int = 10_485_760
    index_interval_bytes: int = 4096
    flush_messages: int = LONG_MAX
    flush_ms: int = LONG_MAX
    max_message_bytes: int = 1_048_588
    timestamp_type: TimestampType = TimestampType.CREATE_TIME
    timestamp_before_max_ms: int = LONG_MAX
    timestamp_after_max_ms: int = LONG_MAX
    min_insync_replicas: int = 1
    unclean_leader_election_enable: bool = False
    retention_ms: int = 604_800_000
    """Negative: no limit."""
    retention_bytes: int = -1
    """Negative: no limit."""
    file_delete_delay_ms: int = 60_000
    cleanup_policy: tuple[str, ...] = ("delete",)
    effective: Mapping[str, str] = field(default_factory=dict)
    """What was set, by topic config name: the topic's own over the server's. No defaults."""

    @property
    def is_compacted(self) -> bool:
        return "compact" in self.cleanup_policy

    @property
    def is_deleted(self) -> bool:
        """Whether old segments are deleted by age and size."""
        return "delete" in self.cleanup_policy

    @staticmethod
    def from_server(properties: Mapping[str, str]) -> LogConfig:
        """The broker-wide default, from server properties (others among them are not looked at).

        Raises InvalidConfigError naming the server property.
        """
        return _build(server_defaults(properties))

    @staticmethod
    def parse(
        overrides: Mapping[str, str], defaults: LogConfig | None = None, *, is_internal: bool = False
    ) -> LogConfig:
        """A topic's configuration: ``overrides`` over the broker's ``defaults``.

        ``is_internal`` is for the topics in which coordinators keep their state. They are
        compacted topics, as in Kafka: never deleted by age or size. That nothing compacts them
        yet costs space, not meaning, since whoever loads them takes the last value of each key;
        so for them, and for nobody else, `cleanup.policy=compact` is honoured.

        Raises InvalidConfigError: an unknown name (with the nearest known one), a value that is
        wrong or not honoured by this version, two values that contradict each other.
        """
        for name, text in overrides.items():
            _parse_value(topic_config(name), text, is_internal)
        return _build({**(defaults.effective if defaults else {}), **overrides}, is_internal)

    @staticmethod
    def parse_leniently(
        overrides: Mapping[str, str], defaults: LogConfig | None = None, *, is_internal: bool = False
    ) -> tuple[LogConfig, list[str]]:
        """Like :meth:`parse`, for overrides that already stand in a znode and cannot be refused.

        What is wrong is left out; the second value says so, one sentence each, for a loud event.
        """
        good: dict[str, str] = {}
        problems = []
        for name, text in sorted(overrides.items()):
            try:
                LogConfig.parse({**good, name: text}, defaults, is_internal=is_internal)
            except InvalidConfigError as error:
                problems.append(error.message)
            else:
                good[name] = text
        return LogConfig.parse(good, defaults, is_internal=is_internal), problems


def topic_config(name: str) -> TopicConfig:
    """Look a config up. Raises InvalidConfigError with the nearest name for an unknown one."""
    config = TOPIC_CONFIGS.get(name)
    if config is None:
        near = difflib.get_close_matches(name, TOPIC_CONFIGS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidConfigError(f"unknown topic config {name}{hint}")
    return config


def server_defaults(properties: Mapping[str, str]) -> dict[str, str]:
    """Translate server properties into topic configs; the finest unit that is set wins.

    Raises InvalidConfigError naming the server property.
    """
    found: dict[str, str] = {}
    for config in _ALL:
        for server in config.server_properties:
            if server.name not in properties:
                continue
            written = text = properties[server.name].strip()
            try:
                if server.unit_ms != 1:
                    # Any negative time means "for ever", whatever its unit.
                    text = str(max(int(text) * server.unit_ms, -1))
                config.parse(text)
            except InvalidConfigError as error:
                reason = error.message.partition(": ")[2]
                raise InvalidConfigError(f"{server.name}={written}: {reason}") from None
            except ValueError:
                raise InvalidConfigError(f"{server.name}={written}: must be a whole number") from None
            found[config.name] = text
            break
    return found


_COMPACT_ONLY: Final[Value] = ("compact",)


def _parse_value(config: TopicConfig, text: str, is_internal: bool) -> Value:
    if is_internal and config.name == "cleanup.policy" and text.strip() == "compact":
        return _COMPACT_ONLY
    return config.parse(text)


def _build(settings: Mapping[str, str], is_internal: bool = False) -> LogConfig:
    values = {name: config.default for name, config in TOPIC_CONFIGS.items()}
    for name, text in settings.items():
        values[name] = _parse_value(TOPIC_CONFIGS[name], text, is_internal)
    _check_together(values)
    difference = _number(values, "message.timestamp.difference.max.ms")
    before = _number(values, "message.timestamp.before.max.ms")
    after = _number(values, "message.timestamp.after.max.ms")
    fields = {attribute: values[name] for name, attribute in _ATTRIBUTES.items()}
    return LogConfig(
        **fields,  # type: ignore[arg-type]  # The table pairs each name with a field of its type.
        timestamp_type=(
            TimestampType.LOG_APPEND_TIME
            if values["message.timestamp.type"] == "LogAppendTime"
            else TimestampType.CREATE_TIME
        ),
        timestamp_before_max_ms=difference if before == LONG_MAX else before,
        timestamp_after_max_ms=difference if after == LONG_MAX else after,
        effective=dict(settings),
    )


def _check_together(values: Mapping[str, Value]) -> None:
    shortest = _number(values, "min.compaction.lag.ms")
    longest = _number(values, "max.compaction.lag.ms")
    if shortest > longest:
        raise InvalidConfigError(
            f"min.compaction.lag.ms={shortest}: must be at most max.compaction.lag.ms, which is {longest}"
        )


def _number(values: Mapping[str, Value], name: str) -> int:
    value = values[name]
    assert isinstance(value, int)
    return value
