"""A broker's configuration: read from three places, checked as a whole, then never changed.

A setting is looked for in `--override name=value`, then in the environment
(`KAFKALITE_LOG_RETENTION_MS` is `log.retention.ms`), then in `server.properties`. A bad value, a
contradiction between two values, or a value that this version does not honour ends the start with
one line: which setting, where it was set, why it is refused, what is allowed. A name that Kafka
does not know is a warning in a file, which may be shared with other programs, and refused where
it can only have been meant for us.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import javaproperties

from kafkalite.common import Endpoint
from kafkalite.log.config import LogConfig
from kafkalite.protocol.errors import InvalidConfigError
from kafkalite.server.config.definition import (
    ConfigError,
    ConfigType,
    Definition,
    Source,
    UpdateMode,
    Value,
    format_value,
)
from kafkalite.server.config.jaas import zookeeper_sasl
from kafkalite.server.config.listeners import (
    endpoint_names,
    is_loopback,
    is_meta_address,
    parse_endpoints,
    parse_protocol_map,
)
from kafkalite.server.config.table import BROKER_CONFIGS, definition_of
from zk.session import ZooKeeperConfig, ZooKeeperTls

ENVIRONMENT_PREFIX: Final = "KAFKALITE_"


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that somebody gave."""

    text: str
    origin: str
    """Where, for messages: a path, an environment variable, `--override`."""


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One config as `describe_configs` shows it."""

    name: str
    value: str | None
    """None where there is none, or where it is sensitive."""
    type: ConfigType
    source: Source
    """STATIC_BROKER where somebody set it, else DEFAULT."""
    update_mode: UpdateMode
    is_sensitive: bool
    documentation: str

    @property
    def is_read_only(self) -> bool:
        """Whether it can only be changed by a restart."""
        return self.update_mode is UpdateMode.READ_ONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """What a broker reads. Attributes are Kafka's names in snake_case.

    Units and meaning are in :data:`~kafkalite.server.config.table.BROKER_CONFIGS`. A few
    attributes hold what several settings come to together; those have a line here.
    """

    broker_id: int
    """-1 where none is set."""
    broker_id_generation_enable: bool
    reserved_broker_max_id: int
    broker_rack: str | None

    listeners: tuple[Endpoint, ...]
    """What to bind. A blank host means every interface, port 0 any free port."""
    advertised_listeners: tuple[Endpoint, ...]
    """As set; see :meth:`advertise` for what to register."""
    inter_broker_listener_name: str
    """The listener brokers use among themselves, however it was named."""
    socket_listen_backlog_size: int
    socket_request_max_bytes: int
    connections_max_idle_ms: int

    zookeeper_connect: str
    zookeeper_session_timeout_ms: int
    zookeeper_connection_timeout_ms: int
    """The session timeout where it is not set."""
    zookeeper_max_in_flight_requests: int
    zookeeper_ssl_client_enable: bool
    zookeeper_ssl_keystore_location: str | None
    zookeeper_ssl_keystore_password: str | None = field(repr=False)
    zookeeper_ssl_truststore_location: str | None
    zookeeper_ssl_endpoint_identification_algorithm: str
    zookeeper_sasl: Mapping[str, str] | None = field(default=None, repr=False)
    """Credentials from the JAAS file that the environment names; see :mod:`.jaas`."""

    num_partitions: int
    default_replication_factor: int
    auto_create_topics_enable: bool
    delete_topic_enable: bool

    log_dirs: tuple[str, ...]
    """`log.dirs`, else `log.dir`."""
    log_config: LogConfig
    """What topics inherit: all broker-wide defaults of topic configs."""
    num_recovery_threads_per_data_dir: int
    log_flush_scheduler_interval_ms: int
    log_flush_offset_checkpoint_interval_ms: int
    log_flush_start_offset_checkpoint_interval_ms: int
    log_retention_check_interval_ms: int
    producer_id_expiration_ms: int
    producer_id_expiration_check_interval_ms: int

    replica_lag_time_max_ms: int
    replica_fetch_max_bytes: int
    replica_fetch_response_max_bytes: int
    replica_fetch_min_bytes: int
    replica_fetch_wait_max_ms: int
    replica_fetch_backoff_ms: int
    replica_socket_timeout_ms: int
    replica_high_watermark_checkpoint_interval_ms: int
    num_replica_fetchers: int
    fetch_max_bytes: int
    max_incremental_fetch_session_cache_slots: int

    auto_leader_rebalance_enable: bool
    leader_imbalance_check_interval_seconds: int
    leader_imbalance_per_broker_percentage: int
    controller_socket_timeout_ms: int
    controlled_shutdown_enable: bool
    controlled_shutdown_max_retries: int
    controlled_shutdown_retry_backoff_ms: int

    group_initial_rebalance_delay_ms: int
    group_min_session_timeout_ms: int
    group_max_session_timeout_ms: int
    group_max_size: int
    offset_metadata_max_bytes: int
    offsets_commit_timeout_ms: int
    offsets_load_buffer_size: int
    offsets_retention_check_interval_ms: int
    offsets_retention_minutes: int
    offsets_topic_compression_codec: int
    offsets_topic_num_partitions: int
    offsets_topic_replication_factor: int
    offsets_topic_segment_bytes: int

    settings: Mapping[str, Setting] = field(repr=False)
    """What was set, by name, as it was written; everything else is at its default."""
    warnings: tuple[str, ...]
    """What the broker should say at its start, one line each."""

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        environ: Mapping[str, str] = MappingProxyType({}),
        overrides: Mapping[str, str] = MappingProxyType({}),
    ) -> BrokerConfig:
        """Read and check the configuration.

        ``path`` is a Java properties file, ``environ`` the environment (names that do not begin
        with `KAFKALITE_` are not looked at, `KAFKA_OPTS` apart), ``overrides`` what `--override` said. Raises
        ConfigError, also where the file cannot be read.
        """
        warnings: list[str] = []
        settings: dict[str, Setting] = {}
        if path is not None:
            settings.update(_read_file(Path(path), warnings))
        settings.update(_read_environment(environ))
        settings.update(_read_overrides(overrides))
        return replace(cls.from_settings(settings, warnings), zookeeper_sasl=zookeeper_sasl(environ))

    @classmethod
    def from_settings(cls, settings: Mapping[str, Setting], warnings: Sequence[str] = ()) -> BrokerConfig:
        """Check ``settings`` (names of :data:`BROKER_CONFIGS` only). Raises ConfigError."""
        values = {name: definition.default for name, definition in BROKER_CONFIGS.items()}
        for name, setting in settings.items():
            values[name] = _parse(name, setting)
        return _Builder(values, settings, list(warnings)).build()

    @property
    def message_max_bytes(self) -> int:
        """Largest batch of a topic that does not say otherwise."""
        return self.log_config.max_message_bytes

    @property
    def min_insync_replicas(self) -> int:
        """`min.insync.replicas` of a topic that does not say otherwise."""
        return self.log_config.min_insync_replicas

    @property
    def unclean_leader_election_enable(self) -> bool:
        """`unclean.leader.election.enable` of a topic that does not say otherwise."""
        return self.log_config.unclean_leader_election_enable

    def zookeeper_config(self) -> ZooKeeperConfig:
        """What a session with ZooKeeper is opened with."""
        tls = None
        if self.zookeeper_ssl_client_enable:
            tls = ZooKeeperTls(
                ca_file=self.zookeeper_ssl_truststore_location or None,
                cert_file=self.zookeeper_ssl_keystore_location or None,
                key_file=self.zookeeper_ssl_keystore_location or None,
                key_password=self.zookeeper_ssl_keystore_password or None,
                check_hostname=bool(self.zookeeper_ssl_endpoint_identification_algorithm),
            )
        return ZooKeeperConfig(
            connect=self.zookeeper_connect,
            session_timeout_ms=self.zookeeper_session_timeout_ms,
            connection_timeout_ms=self.zookeeper_connection_timeout_ms,
            sasl=self.zookeeper_sasl,
            tls=tls,
            max_in_flight_requests=self.zookeeper_max_in_flight_requests,
        )

    def advertise(self, bound_ports: Mapping[str, int], host_name: str) -> tuple[Endpoint, ...]:
        """The endpoints to register, once the listeners are bound.

        Port 0 becomes the port that was bound, a blank host ``host_name``.
        """
        return tuple(
            endpoint._replace(
                host=endpoint.host or host_name, port=endpoint.port or bound_ports[endpoint.listener]
            )
            for endpoint in self.advertised_listeners
        )

    def describe(self) -> list[ConfigEntry]:
        """Every config that Kafka knows, in alphabetical order, with its value here."""
        return [self._entry(definition) for definition in BROKER_CONFIGS.values()]

    def _entry(self, definition: Definition) -> ConfigEntry:
        setting = self.settings.get(definition.name)
        value = format_value(definition.default) if setting is None else setting.text.strip()
        return ConfigEntry(
            name=definition.name,
            value=None if definition.is_sensitive else value,
            type=definition.type,
            source=Source.DEFAULT if setting is None else Source.STATIC_BROKER,
            update_mode=definition.update_mode,
            is_sensitive=definition.is_sensitive,
            documentation=definition.doc,
        )


# --- Reading -----------------------------------------------------------------------------------


def _read_file(path: Path, warnings: list[str]) -> dict[str, Setting]:
    try:
        text = path.read_bytes().decode("iso-8859-1")  # Java's encoding of properties files.
        lines = [line for line in javaproperties.parse(text) if isinstance(line, javaproperties.KeyValue)]
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except javaproperties.InvalidUEscapeError as error:
        raise ConfigError(f"{path} is not a properties file: {error}") from None
    settings: dict[str, Setting] = {}
    for line in lines:
        name = line.key
        if definition_of(name) is None:
            warnings.append(f"{path}: {name} is not a config{_did_you_mean(name)}; it is left out")
            continue
        if name in settings:
            warnings.append(f"{path}: {name} is set more than once; the last one counts")
        settings[name] = Setting(line.value, str(path))
    return settings


_BY_VARIABLE: Final = MappingProxyType(
    {ENVIRONMENT_PREFIX + name.upper().replace(".", "_"): name for name in BROKER_CONFIGS}
)


def _read_environment(environ: Mapping[str, str]) -> dict[str, Setting]:
    settings = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = _BY_VARIABLE.get(variable)
        if name is None:
            near = difflib.get_close_matches(variable, _BY_VARIABLE, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"environment variable {variable} names no config{hint}")
        settings[name] = Setting(text, f"environment variable {variable}")
    return settings


def _read_overrides(overrides: Mapping[str, str]) -> dict[str, Setting]:
    settings = {}
    for name, text in overrides.items():
        if definition_of(name) is None:
            raise ConfigError(f"--override {name}: not a config{_did_you_mean(name)}")
        settings[name] = Setting(text, "--override")
    return settings


def _did_you_mean(name: str) -> str:
    near = difflib.get_close_matches(name, BROKER_CONFIGS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _parse(name: str, setting: Setting) -> Value:
    definition = definition_of(name)
    assert definition is not None, f"{name} was looked up when it was read"
    try:
        value = definition.parse(setting.text)
    except ValueError as error:
        raise _refused(name, setting, str(error)) from None
    if not definition.is_accepted(value):
        default = format_value(definition.default)
        allowed = f"leave it at its default, {default}" if default else "leave it unset"
        raise _refused(name, setting, f"known to Kafka but not honoured by this version; {allowed}")
    return value


def _refused(name: str, setting: Setting | None, why: str) -> ConfigError:
    """One line about one setting; a secret is not repeated in it."""
    if setting is None:
        return ConfigError(f"{name}: {why}")
    definition = definition_of(name)
    hidden = definition is not None and definition.is_sensitive
    return ConfigError(f"{name}={'[hidden]' if hidden else setting.text.strip()} ({setting.origin}): {why}")


# --- Checking ----------------------------------------------------------------------------------


class _Builder:
    """Checks values against each other and makes the configuration."""

    def __init__(
        self, values: Mapping[str, Value], settings: Mapping[str, Setting], warnings: list[str]
    ) -> None:
        self._values = values
        self._settings = settings
        self._warnings = warnings

    def build(self) -> BrokerConfig:
        plain: dict[str, Any] = {}
        for attribute in fields(BrokerConfig):
            name = attribute.name.replace("_", ".")
            if name in self._values:
                plain[attribute.name] = self._values[name]
        protocols = self._protocol_map()
        listeners = self._endpoints("listeners", protocols)
        advertised = self._advertised(listeners, protocols)
        inter_broker = self._inter_broker_listener(advertised, protocols)
        self._check_broker_id()
        self._check_zookeeper()
        self._check_replication()
        log_config = self._log_config()
        self._check_sessions()
        for endpoint in listeners:
            if not is_loopback(endpoint.host):
                where = endpoint.host or "every interface"
                self._warnings.append(
                    f"listener {endpoint.listener} binds to {where} and nothing authenticates: "
                    "whoever reaches it can read, write and administer everything"
                )
        timeout = self._values["zookeeper.connection.timeout.ms"]
        session_timeout = self._values["zookeeper.session.timeout.ms"]
        plain.update(
            listeners=listeners,
            advertised_listeners=advertised,
            inter_broker_listener_name=inter_broker,
            log_dirs=self._log_dirs(),
            log_config=log_config,
            broker_rack=self._values["broker.rack"] or None,
            zookeeper_connection_timeout_ms=session_timeout if timeout is None else timeout,
            settings=MappingProxyType(dict(self._settings)),
            warnings=tuple(self._warnings),
        )
        return BrokerConfig(**plain)

    def _number(self, name: str) -> int:
        value = self._values[name]
        assert isinstance(value, int)
        return value

    def _text(self, name: str) -> str:
        value = self._values[name]
        return value if isinstance(value, str) else ""

    def _error(self, name: str, why: str) -> ConfigError:
        return _refused(name, self._settings.get(name), why)

    def _protocol_map(self) -> dict[str, str]:
        name = "listener.security.protocol.map"
        try:
            return parse_protocol_map(self._text(name))
        except ValueError as error:
            raise self._error(name, str(error)) from None

    def _endpoints(self, name: str, protocols: Mapping[str, str]) -> tuple[Endpoint, ...]:
        try:
            return parse_endpoints(self._text(name), protocols, distinct_ports=name == "listeners")
        except ValueError as error:
            raise self._error(name, str(error)) from None

    def _advertised(
        self, listeners: tuple[Endpoint, ...], protocols: Mapping[str, str]
    ) -> tuple[Endpoint, ...]:
        name = "advertised.listeners" if self._text("advertised.listeners") else "listeners"
        advertised = listeners if name == "listeners" else self._endpoints(name, protocols)
        bound = {endpoint.listener for endpoint in listeners}
        for endpoint in advertised:
            if endpoint.listener not in bound:
                raise self._error(
                    name, f"{endpoint.listener} is not in listeners, which names {endpoint_names(listeners)}"
                )
            if is_meta_address(endpoint.host):
                hint = "" if name == "advertised.listeners" else "; set advertised.listeners"
                raise self._error(
                    name, f"nobody can connect to {endpoint.host}, so it cannot be advertised{hint}"
                )
        return advertised

    def _inter_broker_listener(self, advertised: tuple[Endpoint, ...], protocols: Mapping[str, str]) -> str:
        by_name, by_protocol = "inter.broker.listener.name", "security.inter.broker.protocol"
        if self._text(by_name) and by_protocol in self._settings:
            raise self._error(by_name, f"only one of {by_name} and {by_protocol} may be set")
        name = by_name if self._text(by_name) else by_protocol
        listener = self._text(name).upper()
        if listener not in protocols:
            raise self._error(
                name, f"listener {listener} is not in listener.security.protocol.map ({', '.join(protocols)})"
            )
        if all(endpoint.listener != listener for endpoint in advertised):
            hint = "" if name == by_name else f"; set {by_name}"
            raise self._error(
                name,
                f"brokers would talk over listener {listener}, which is not advertised "
                f"({endpoint_names(advertised)}){hint}",
            )
        return listener

    def _check_broker_id(self) -> None:
        broker_id, largest = self._number("broker.id"), self._number("reserved.broker.max.id")
        if self._values["broker.id.generation.enable"]:
            if not -1 <= broker_id <= largest:
                raise self._error(
                    "broker.id",
                    f"must be from -1 (generate one) to reserved.broker.max.id, which is {largest}",
                )
        elif broker_id < 0:
            raise self._error("broker.id", "must be at least 0, because broker.id.generation.enable is false")

    def _check_zookeeper(self) -> None:
        name = "zookeeper.connect"
        text = self._text(name)
        if not text:
            raise self._error(name, "required: the ZooKeeper ensemble, host:port,host:port/chroot")
        hosts, slash, chroot = text.partition("/")
        if slash and (not chroot or chroot.endswith("/") or "//" in chroot):
            raise self._error(name, f"/{chroot} is no path for a chroot")
        for host in hosts.split(","):
            _, colon, port = host.strip().rpartition(":")
            is_port = port.isascii() and port.isdigit() and 0 < int(port) <= 65535
            if not host.strip() or (colon and not host.strip().endswith("]") and not is_port):
                raise self._error(name, f"{host.strip()!r} is not host:port")

        for store in ("zookeeper.ssl.keystore", "zookeeper.ssl.truststore"):
            location, kind = self._text(f"{store}.location"), self._text(f"{store}.type")
            if kind and kind.upper() != "PEM":
                raise self._error(f"{store}.type", "this version reads PEM files only")
            if location and not kind and not location.endswith(".pem"):
                raise self._error(
                    f"{store}.location",
                    f"this version reads PEM files only; if it is one, set {store}.type=PEM",
                )

    def _check_replication(self) -> None:
        wait = "replica.fetch.wait.max.ms"
        for limit in ("replica.socket.timeout.ms", "replica.lag.time.max.ms"):
            if self._number(wait) > self._number(limit):
                culprit, other = (wait, limit) if wait in self._settings else (limit, wait)
                relation = "at most" if culprit == wait else "at least"
                raise self._error(culprit, f"must be {relation} {other}, which is {self._number(other)}")

    def _log_dirs(self) -> tuple[str, ...]:
        name = "log.dirs" if self._values["log.dirs"] is not None else "log.dir"
        directories = tuple(part.strip() for part in self._text(name).split(",") if part.strip())
        if not directories:
            raise self._error(name, "must name at least one directory")
        if len({Path(directory) for directory in directories}) < len(directories):
            raise self._error(name, "names a directory twice")
        return directories

    def _log_config(self) -> LogConfig:
        for name in ("log.retention.ms", "log.retention.minutes", "log.retention.hours"):
            if self._values[name] == 0:
                raise self._error(name, "must be at least 1, or -1 for no limit")
        for name in ("log.roll.ms", "log.roll.hours"):
            value = self._values[name]
            if value is not None and self._number(name) < 1:
                raise self._error(name, "must be at least 1")
        try:
            return LogConfig.from_server({name: setting.text for name, setting in self._settings.items()})
        except InvalidConfigError as error:
            raise ConfigError(self._with_origin(error.message)) from None

    def _with_origin(self, message: str) -> str:
        """Say where a setting came from that the log refused (`name=value: why`)."""
        name = message.partition("=")[0]
        setting = self._settings.get(name)
        if setting is None:
            return message
        return str(_refused(name, setting, message.partition(": ")[2]))

    def _check_sessions(self) -> None:
        low, high = "group.min.session.timeout.ms", "group.max.session.timeout.ms"
        if self._number(low) > self._number(high):
            raise self._error(low, f"must be at most {high}, which is {self._number(high)}")
