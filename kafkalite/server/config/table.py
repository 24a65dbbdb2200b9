"""Every broker config of ZooKeeper-era Kafka, and what this version does with each.

Three parts: what is honoured (each with its line of documentation), what is dormant until its
feature exists, and what Kafka knows and this version does not do. The broker-wide defaults of
topic configs are taken from :data:`kafkalite.log.config.TOPIC_CONFIGS`, so that name, range and
standing are decided in one place.

Kafka's names that only mean something with KRaft are listed too (as not honoured), because
somebody who starts with a KRaft file should be told so rather than get a spelling hint.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from kafkalite.log.config import TOPIC_CONFIGS
from kafkalite.log.config import ConfigType as TopicConfigType
from kafkalite.server.config.definition import (
    INT_MAX,
    LONG_MAX,
    ConfigType,
    Definition,
    Standing,
    UpdateMode,
    Value,
)

BOOLEAN: Final = ConfigType.BOOLEAN
STRING: Final = ConfigType.STRING
INT: Final = ConfigType.INT
SHORT: Final = ConfigType.SHORT
LONG: Final = ConfigType.LONG
DOUBLE: Final = ConfigType.DOUBLE
LIST: Final = ConfigType.LIST
CLASS: Final = ConfigType.CLASS
PASSWORD: Final = ConfigType.PASSWORD

DEFAULT_LISTENERS: Final = "PLAINTEXT://127.0.0.1:9092"
"""Differs from Kafka, which binds to every interface."""

SECURITY_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_NETTY_SOCKET: Final = "org.apache.zookeeper.ClientCnxnSocketNetty"
_KAFKA_SECURITY: Final = "org.apache.kafka.common.security"
DEFAULT_PROTOCOL_MAP: Final = ",".join(f"{protocol}:{protocol}" for protocol in SECURITY_PROTOCOLS)


def _honoured(
    name: str,
    type: ConfigType,
    default: Value,
    doc: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    one_of: tuple[str, ...] = (),
) -> Definition:
    return Definition(
        name=name, type=type, default=default, doc=doc, at_least=at_least, at_most=at_most, one_of=one_of
    )


def _dormant(
    name: str,
    type: ConfigType,
    default: Value,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Definition:
    return Definition(
        name=name,
        type=type,
        default=default,
        doc="Takes effect once transactions exist; checked and shown, not read, by this version.",
        at_least=at_least,
        at_most=at_most,
        standing=Standing.DORMANT,
    )


def _known(
    name: str,
    type: ConfigType,
    default: Value,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    one_of: tuple[str, ...] = (),
    same_as_default: tuple[str, ...] = (),
) -> Definition:
    return Definition(
        name=name,
        type=type,
        default=default,
        doc="Known to Kafka but not honoured by this version: only the default is accepted.",
        at_least=at_least,
        at_most=at_most,
        one_of=one_of,
        same_as_default=same_as_default,
        standing=Standing.NOT_HONOURED,
    )


_HONOURED: Final = (
    # Who this broker is.
    _honoured("broker.id", INT, -1, "This broker's id; -1 takes the data directory's or generates one."),
    _honoured(
        "broker.id.generation.enable",
        BOOLEAN,
        True,
        "Whether ids above reserved.broker.max.id are generated.",
    ),
    _honoured("reserved.broker.max.id", INT, 1000, "Largest broker.id that may be set by hand.", at_least=0),
    _honoured("broker.rack", STRING, None, "Where this broker stands; replicas are spread over racks."),
    # Listeners.
    _honoured(
        "listeners",
        STRING,
        DEFAULT_LISTENERS,
        "Where this broker listens: NAME://host:port, comma-separated.",
    ),
    _honoured("advertised.listeners", STRING, None, "Where others reach the listeners; default: listeners."),
    _honoured(
        "listener.security.protocol.map",
        STRING,
        DEFAULT_PROTOCOL_MAP,
        "Which security protocol a listener speaks; this version speaks PLAINTEXT.",
    ),
    _honoured("inter.broker.listener.name", STRING, None, "The listener that brokers use among themselves."),
    _honoured(
        "security.inter.broker.protocol",
        STRING,
        "PLAINTEXT",
        "Names the inter-broker listener where inter.broker.listener.name does not.",
    ),
    _honoured("socket.listen.backlog.size", INT, 50, "Connections that may wait to be accepted.", at_least=1),
    _honoured(
        "socket.request.max.bytes",
        INT,
        104857600,
        "Largest request body; a larger one is answered 413.",
        at_least=1,
    ),
    _honoured(
        "connections.max.idle.ms",
        LONG,
        600000,
        "How long a connection without a request is kept.",
        at_least=1,
    ),
    # ZooKeeper.
    _honoured("zookeeper.connect", STRING, None, "The ensemble: host:port,host:port/chroot. Required."),
    _honoured(
        "zookeeper.session.timeout.ms",
        INT,
        18000,
        "How long this broker may be silent before its session, and its leadership, end.",
        at_least=1,
    ),
    _honoured(
        "zookeeper.connection.timeout.ms",
        INT,
        None,
        "How long a start waits for ZooKeeper; default: zookeeper.session.timeout.ms.",
        at_least=1,
    ),
    _honoured(
        "zookeeper.max.in.flight.requests",
        INT,
        10,
        "Requests to ZooKeeper sent before the first is answered.",
        at_least=1,
    ),
    _honoured("zookeeper.ssl.client.enable", BOOLEAN, False, "Whether ZooKeeper is spoken to over TLS."),
    _honoured(
        "zookeeper.ssl.keystore.location",
        STRING,
        None,
        "PEM file with this broker's certificate chain and key.",
    ),
    _honoured("zookeeper.ssl.keystore.password", PASSWORD, None, "Password of the key."),
    _honoured("zookeeper.ssl.keystore.type", STRING, None, "PEM; default: by the file's extension."),
    _honoured("zookeeper.ssl.truststore.location", STRING, None, "PEM file with the authorities to trust."),
    _honoured("zookeeper.ssl.truststore.type", STRING, None, "PEM; default: by the file's extension."),
    _honoured(
        "zookeeper.ssl.endpoint.identification.algorithm",
        STRING,
        "HTTPS",
        "HTTPS checks the server's host name, empty does not.",
        one_of=("HTTPS", "https", ""),
    ),
    # Topics.
    _honoured("num.partitions", INT, 1, "Partitions of a topic created without a number.", at_least=1),
    _honoured(
        "default.replication.factor",
        INT,
        1,
        "Replication factor of a topic created without one.",
        at_least=1,
        at_most=32767,
    ),
    _honoured(
        "auto.create.topics.enable",
        BOOLEAN,
        False,
        "Whether asking for an unknown topic creates it (Kafka's default is true).",
    ),
    _honoured("delete.topic.enable", BOOLEAN, True, "Whether topics can be deleted."),
    # Log.
    _honoured("log.dir", STRING, "/tmp/kafka-logs", "Where the logs are, if log.dirs is not set."),
    _honoured("log.dirs", STRING, None, "Directories that hold the logs, comma-separated; default: log.dir."),
    _honoured(
        "num.recovery.threads.per.data.dir", INT, 1, "Logs of one directory recovered at a time.", at_least=1
    ),
    _honoured(
        "log.flush.scheduler.interval.ms",
        LONG,
        LONG_MAX,
        "How often logs are looked at for flush.ms.",
        at_least=1,
    ),
    _honoured(
        "log.flush.offset.checkpoint.interval.ms",
        INT,
        60000,
        "How often recovery points are checkpointed.",
        at_least=0,
    ),
    _honoured(
        "log.flush.start.offset.checkpoint.interval.ms",
        INT,
        60000,
        "How often log start offsets are checkpointed.",
        at_least=0,
    ),
    _honoured(
        "log.retention.check.interval.ms", LONG, 300000, "How often old segments are looked for.", at_least=1
    ),
    _honoured(
        "producer.id.expiration.ms",
        INT,
        86400000,
        "How long the state of an idle idempotent producer is kept.",
        at_least=1,
    ),
    _honoured(
        "producer.id.expiration.check.interval.ms",
        INT,
        600000,
        "How often expired producers are looked for.",
        at_least=1,
    ),
    # Replication.
    _honoured(
        "replica.lag.time.max.ms",
        LONG,
        30000,
        "How long a follower may lag before it leaves the ISR.",
        at_least=1,
    ),
    _honoured(
        "replica.fetch.max.bytes", INT, 1048576, "Bytes a follower asks for per partition.", at_least=0
    ),
    _honoured(
        "replica.fetch.response.max.bytes",
        INT,
        10485760,
        "Bytes a follower asks for per request.",
        at_least=0,
    ),
    _honoured(
        "replica.fetch.min.bytes",
        INT,
        1,
        "Bytes a leader waits for before it answers a follower.",
        at_least=0,
    ),
    _honoured("replica.fetch.wait.max.ms", INT, 500, "How long a leader may wait for them.", at_least=0),
    _honoured(
        "replica.fetch.backoff.ms",
        INT,
        1000,
        "How long a follower leaves a failing partition alone.",
        at_least=0,
    ),
    _honoured(
        "replica.socket.timeout.ms",
        INT,
        30000,
        "How long a follower waits for an answer; at least replica.fetch.wait.max.ms.",
        at_least=1,
    ),
    _honoured(
        "replica.high.watermark.checkpoint.interval.ms",
        LONG,
        5000,
        "How often high watermarks are checkpointed.",
        at_least=1,
    ),
    _honoured("num.replica.fetchers", INT, 1, "Fetchers per leader that this broker follows.", at_least=1),
    _honoured("fetch.max.bytes", INT, 57671680, "Largest answer to a consumer's fetch.", at_least=1024),
    _honoured(
        "max.incremental.fetch.session.cache.slots",
        INT,
        1000,
        "Fetch sessions that are kept, of followers and consumers.",
        at_least=0,
    ),
    # Controller and shutdown.
    _honoured(
        "auto.leader.rebalance.enable",
        BOOLEAN,
        True,
        "Whether the controller moves leadership back to preferred replicas.",
    ),
    _honoured(
        "leader.imbalance.check.interval.seconds",
        LONG,
        300,
        "How often the controller looks for leaders to move back.",
        at_least=1,
    ),
    _honoured(
        "leader.imbalance.per.broker.percentage",
        INT,
        10,
        "Share of misplaced leaders on a broker that is let be.",
        at_least=0,
    ),
    _honoured(
        "controller.socket.timeout.ms",
        INT,
        30000,
        "How long one request of the controller to a broker may take.",
        at_least=1,
    ),
    _honoured(
        "controlled.shutdown.enable",
        BOOLEAN,
        True,
        "Whether leaders are moved away before this broker stops.",
    ),
    _honoured(
        "controlled.shutdown.max.retries", INT, 3, "How often a controlled shutdown is tried.", at_least=1
    ),
    _honoured("controlled.shutdown.retry.backoff.ms", LONG, 5000, "Pause between the tries.", at_least=0),
    # Consumer groups.
    _honoured(
        "group.initial.rebalance.delay.ms",
        INT,
        3000,
        "How long the first member of an empty group waits for others.",
        at_least=0,
    ),
    _honoured("group.min.session.timeout.ms", INT, 6000, "Shortest session timeout a member may ask for."),
    _honoured("group.max.session.timeout.ms", INT, 1800000, "Longest session timeout a member may ask for."),
    _honoured("group.max.size", INT, INT_MAX, "Most members of a group.", at_least=1),
    _honoured("offset.metadata.max.bytes", INT, 4096, "Longest metadata beside a committed offset."),
    _honoured(
        "offsets.commit.timeout.ms", INT, 5000, "How long a commit waits for the replicas.", at_least=1
    ),
    _honoured(
        "offsets.load.buffer.size", INT, 5242880, "Bytes read at once when offsets are loaded.", at_least=1
    ),
    _honoured(
        "offsets.retention.check.interval.ms", LONG, 600000, "How often offsets are expired.", at_least=1
    ),
    _honoured(
        "offsets.retention.minutes",
        INT,
        10080,
        "How long the offsets of a group without members, or of a topic it left, are kept.",
        at_least=1,
    ),
    _honoured(
        "offsets.topic.compression.codec",
        INT,
        0,
        "Compression of __consumer_offsets: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.",
        at_least=0,
        at_most=4,
    ),
    _honoured(
        "offsets.topic.num.partitions",
        INT,
        50,
        "Partitions that __consumer_offsets is made with.",
        at_least=1,
    ),
    _honoured(
        "offsets.topic.replication.factor",
        SHORT,
        3,
        "Replicas that __consumer_offsets is made with; it is not made with fewer live brokers.",
        at_least=1,
    ),
    _honoured(
        "offsets.topic.segment.bytes", INT, 104857600, "Segment size of __consumer_offsets.", at_least=1
    ),
)

_DORMANT: Final = (
    _dormant("transaction.abort.timed.out.transaction.cleanup.interval.ms", INT, 10000, at_least=1),
    _dormant("transaction.max.timeout.ms", INT, 900000, at_least=1),
    _dormant("transaction.partition.verification.enable", BOOLEAN, True),
    _dormant("transaction.remove.expired.transaction.cleanup.interval.ms", INT, 3600000, at_least=1),
    _dormant("transaction.state.log.load.buffer.size", INT, 5242880, at_least=1),
    _dormant("transaction.state.log.min.isr", INT, 2, at_least=1),
    _dormant("transaction.state.log.num.partitions", INT, 50, at_least=1),
    _dormant("transaction.state.log.replication.factor", SHORT, 3, at_least=1),
    _dormant("transaction.state.log.segment.bytes", INT, 104857600, at_least=1),
    _dormant("transactional.id.expiration.ms", INT, 604800000, at_least=1),
)

_NOT_HONOURED: Final = (
    _known("offsets.commit.required.acks", SHORT, -1, at_least=-1),
    _known("alter.config.policy.class.name", CLASS, None),
    _known("alter.log.dirs.replication.quota.window.num", INT, 11, at_least=1),
    _known("alter.log.dirs.replication.quota.window.size.seconds", INT, 1, at_least=1),
    _known("authorizer.class.name", STRING, ""),
    _known("auto.include.jmx.reporter", BOOLEAN, True),
    _known("background.threads", INT, 10, at_least=1),
    _known("client.quota.callback.class", CLASS, None),
    _known("connection.failed.authentication.delay.ms", INT, 100, at_least=0),
    _known("connections.max.reauth.ms", LONG, 0),
    _known("control.plane.listener.name", STRING, None),
    _known("controller.quota.window.num", INT, 11, at_least=1),
    _known("controller.quota.window.size.seconds", INT, 1, at_least=1),
    _known("create.topic.policy.class.name", CLASS, None),
    _known("delegation.token.expiry.check.interval.ms", LONG, 3600000, at_least=1),
    _known("delegation.token.expiry.time.ms", LONG, 86400000, at_least=1),
    _known("delegation.token.master.key", PASSWORD, None),
    _known("delegation.token.max.lifetime.ms", LONG, 604800000, at_least=1),
    _known("delegation.token.secret.key", PASSWORD, None),
    _known("delete.records.purgatory.purge.interval.requests", INT, 1),
    _known("early.start.listeners", STRING, None),
    _known("fetch.purgatory.purge.interval.requests", INT, 1000),
    _known("inter.broker.protocol.version", STRING, "3.9-IV0", same_as_default=("3.9",)),
    _known("kafka.metrics.polling.interval.secs", INT, 10, at_least=1),
    _known("kafka.metrics.reporters", LIST, ()),
    _known("log.cleaner.backoff.ms", LONG, 15000, at_least=0),
    _known("log.cleaner.dedupe.buffer.size", LONG, 134217728),
    _known("log.cleaner.enable", BOOLEAN, True),
    _known("log.cleaner.io.buffer.load.factor", DOUBLE, 0.9),
    _known("log.cleaner.io.buffer.size", INT, 524288, at_least=0),
    _known("log.cleaner.io.max.bytes.per.second", DOUBLE, sys.float_info.max),
    _known("log.cleaner.threads", INT, 1, at_least=0),
    _known("log.dir.failure.timeout.ms", LONG, 30000, at_least=1),
    _known("max.connection.creation.rate", INT, INT_MAX, at_least=0),
    _known("max.connections", INT, INT_MAX, at_least=0),
    _known("max.connections.per.ip", INT, INT_MAX, at_least=0),
    _known("max.connections.per.ip.overrides", STRING, ""),
    _known("max.request.partition.size.limit", INT, 2000, at_least=1),
    _known("mechanismName", STRING, None),
    _known("metric.reporters", LIST, ()),
    _known("metrics.num.samples", INT, 2, at_least=1),
    _known("metrics.recording.level", STRING, "INFO", one_of=("INFO", "DEBUG", "TRACE")),
    _known("metrics.sample.window.ms", LONG, 30000, at_least=1),
    _known("num.io.threads", INT, 8, at_least=1),
    _known("num.network.threads", INT, 3, at_least=1),
    _known("num.replica.alter.log.dirs.threads", INT, None),
    _known("password.encoder.cipher.algorithm", STRING, "AES/CBC/PKCS5Padding"),
    _known("password.encoder.iterations", INT, 4096, at_least=1024),
    _known("password.encoder.key.length", INT, 128, at_least=8),
    _known("password.encoder.keyfactory.algorithm", STRING, None),
    _known("password.encoder.old.secret", PASSWORD, None),
    _known("password.encoder.secret", PASSWORD, None),
    _known("principal.builder.class", CLASS, f"{_KAFKA_SECURITY}.authenticator.DefaultKafkaPrincipalBuilder"),
    _known("producer.purgatory.purge.interval.requests", INT, 1000),
    _known("queued.max.request.bytes", LONG, -1),
    _known("queued.max.requests", INT, 500, at_least=1),
    _known("quota.window.num", INT, 11, at_least=1),
    _known("quota.window.size.seconds", INT, 1, at_least=1),
    _known("replica.alter.log.dirs.io.max.bytes.per.second", LONG, LONG_MAX, at_least=0),
    _known("replica.selector.class", STRING, None),
    _known("replica.socket.receive.buffer.bytes", INT, 65536),
    _known("replication.quota.window.num", INT, 11, at_least=1),
    _known("replication.quota.window.size.seconds", INT, 1, at_least=1),
    _known("request.timeout.ms", INT, 30000),
    _known("sasl.client.callback.handler.class", CLASS, None),
    _known("sasl.enabled.mechanisms", LIST, ("GSSAPI",)),
    _known("sasl.jaas.config", PASSWORD, None),
    _known("sasl.kerberos.kinit.cmd", STRING, "/usr/bin/kinit"),
    _known("sasl.kerberos.min.time.before.relogin", LONG, 60000),
    _known("sasl.kerberos.principal.to.local.rules", LIST, ("DEFAULT",)),
    _known("sasl.kerberos.service.name", STRING, None),
    _known("sasl.kerberos.ticket.renew.jitter", DOUBLE, 0.05),
    _known("sasl.kerberos.ticket.renew.window.factor", DOUBLE, 0.80),
    _known("sasl.login.callback.handler.class", CLASS, None),
    _known("sasl.login.class", CLASS, None),
    _known("sasl.login.connect.timeout.ms", INT, None),
    _known("sasl.login.read.timeout.ms", INT, None),
    _known("sasl.login.refresh.buffer.seconds", SHORT, 300),
    _known("sasl.login.refresh.min.period.seconds", SHORT, 60),
    _known("sasl.login.refresh.window.factor", DOUBLE, 0.80),
    _known("sasl.login.refresh.window.jitter", DOUBLE, 0.05),
    _known("sasl.login.retry.backoff.max.ms", LONG, 10000),
    _known("sasl.login.retry.backoff.ms", LONG, 100),
    _known("sasl.mechanism.inter.broker.protocol", STRING, "GSSAPI"),
    _known("sasl.oauthbearer.clock.skew.seconds", INT, 30),
    _known("sasl.oauthbearer.expected.audience", LIST, None),
    _known("sasl.oauthbearer.expected.issuer", STRING, None),
    _known("sasl.oauthbearer.jwks.endpoint.refresh.ms", LONG, 3600000),
    _known("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", LONG, 10000),
    _known("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", LONG, 100),
    _known("sasl.oauthbearer.jwks.endpoint.url", STRING, None),
    _known("sasl.oauthbearer.scope.claim.name", STRING, "scope"),
    _known("sasl.oauthbearer.sub.claim.name", STRING, "sub"),
    _known("sasl.oauthbearer.token.endpoint.url", STRING, None),
    _known("sasl.server.callback.handler.class", CLASS, None),
    _known("sasl.server.max.receive.size", INT, 524288),
    _known("security.providers", STRING, None),
    _known("socket.connection.setup.timeout.max.ms", LONG, 30000),
    _known("socket.connection.setup.timeout.ms", LONG, 10000),
    _known("socket.receive.buffer.bytes", INT, 102400),
    _known("socket.send.buffer.bytes", INT, 102400),
    _known("ssl.allow.dn.changes", BOOLEAN, False),
    _known("ssl.allow.san.changes", BOOLEAN, False),
    _known("ssl.cipher.suites", LIST, ()),
    _known("ssl.client.auth", STRING, "none", one_of=("required", "requested", "none")),
    _known(
        "ssl.enabled.protocols",
        LIST,
        (
            "TLSv1.2",
            "TLSv1.3",
        ),
    ),
    _known("ssl.endpoint.identification.algorithm", STRING, "https"),
    _known("ssl.engine.factory.class", CLASS, None),
    _known("ssl.key.password", PASSWORD, None),
    _known("ssl.keymanager.algorithm", STRING, "SunX509"),
    _known("ssl.keystore.certificate.chain", PASSWORD, None),
    _known("ssl.keystore.key", PASSWORD, None),
    _known("ssl.keystore.location", STRING, None),
    _known("ssl.keystore.password", PASSWORD, None),
    _known("ssl.keystore.type", STRING, "JKS"),
    _known("ssl.principal.mapping.rules", STRING, "DEFAULT"),
    _known("ssl.protocol", STRING, "TLSv1.3"),
    _known("ssl.provider", STRING, None),
    _known("ssl.secure.random.implementation", STRING, None),
    _known("ssl.trustmanager.algorithm", STRING, "PKIX"),
    _known("ssl.truststore.certificates", PASSWORD, None),
    _known("ssl.truststore.location", STRING, None),
    _known("ssl.truststore.password", PASSWORD, None),
    _known("ssl.truststore.type", STRING, "JKS"),
    _known("telemetry.max.bytes", INT, 1048576, at_least=1),
    # Chooses between two Java classes; Kafka wants this one named for TLS.
    _known("zookeeper.clientCnxnSocket", STRING, None, same_as_default=(_NETTY_SOCKET,)),
    _known("zookeeper.set.acl", BOOLEAN, False),
    _known("zookeeper.ssl.cipher.suites", LIST, None),
    _known("zookeeper.ssl.crl.enable", BOOLEAN, False),
    _known("zookeeper.ssl.enabled.protocols", LIST, None),
    _known("zookeeper.ssl.ocsp.enable", BOOLEAN, False),
    _known("zookeeper.ssl.protocol", STRING, "TLSv1.2"),
    _known("zookeeper.ssl.truststore.password", PASSWORD, None),
    # Authorizer settings, dynamic throttles.
    _known("super.users", STRING, ""),
    _known("allow.everyone.if.no.acl.found", BOOLEAN, False),
    _known("leader.replication.throttled.rate", LONG, LONG_MAX, at_least=0),
    _known("follower.replication.throttled.rate", LONG, LONG_MAX, at_least=0),
    # Tiered storage and KRaft.
    _known("remote.log.storage.system.enable", BOOLEAN, False),
    _known("process.roles", LIST, ()),
    _known("node.id", INT, -1),
    _known("controller.quorum.voters", LIST, ()),
    _known("controller.quorum.bootstrap.servers", LIST, ()),
    _known("controller.listener.names", STRING, None),
    _known("metadata.log.dir", STRING, None),
    _known("zookeeper.metadata.migration.enable", BOOLEAN, False),
)

_CLUSTER_WIDE: Final = frozenset(
    {
        "background.threads",
        "follower.replication.throttled.rate",
        "leader.replication.throttled.rate",
        "log.cleaner.backoff.ms",
        "log.cleaner.dedupe.buffer.size",
        "log.cleaner.io.buffer.load.factor",
        "log.cleaner.io.buffer.size",
        "log.cleaner.io.max.bytes.per.second",
        "log.cleaner.threads",
        "max.connection.creation.rate",
        "max.connections",
        "max.connections.per.ip",
        "max.connections.per.ip.overrides",
        "metric.reporters",
        "num.io.threads",
        "num.network.threads",
        "num.recovery.threads.per.data.dir",
        "num.replica.fetchers",
        "producer.id.expiration.ms",
        "replica.alter.log.dirs.io.max.bytes.per.second",
        "transaction.partition.verification.enable",
    }
)
_PER_BROKER: Final = frozenset(
    {"advertised.listeners", "listener.security.protocol.map", "listeners", "principal.builder.class"}
)
_NEVER_DYNAMIC: Final = frozenset(
    {
        "log.message.format.version",
        "log.retention.hours",
        "log.retention.minutes",
        "log.roll.hours",
        "log.roll.jitter.hours",
        "log.flush.scheduler.interval.ms",
    }
)
"""Server properties of topic configs that Kafka does not let change while running."""

_TYPES: Final[Mapping[TopicConfigType, ConfigType]] = MappingProxyType(
    {type: ConfigType(type.value) for type in TopicConfigType}
)


def _topic_defaults() -> Iterable[Definition]:
    """The broker-wide defaults of topic configs, as broker configs."""
    own = {definition.name for definition in _HONOURED}
    for topic in TOPIC_CONFIGS.values():
        for server in topic.server_properties:
            if server.name in own:
                continue
            first = server is topic.server_properties[0]
            # The finest of several units has no default of its own: a coarser one supplies it.
            alone = len(topic.server_properties) == 1
            # Hours and minutes are ints in Kafka; only the finest unit has the topic's own type.
            partly = " (in part)" if topic.honoured_values is not None else ""
            yield Definition(
                name=server.name,
                type=_TYPES[topic.type] if first else INT,
                default=topic.default if alone else server.default,
                doc=f"{topic.doc} Default of topics' {topic.name}{partly}.",
                standing=Standing.HONOURED if topic.is_honoured else Standing.NOT_HONOURED,
                update_mode=(
                    UpdateMode.READ_ONLY if server.name in _NEVER_DYNAMIC else UpdateMode.CLUSTER_WIDE
                ),
            )


def _with_update_mode(definition: Definition) -> Definition:
    name = definition.name
    if name in _CLUSTER_WIDE:
        return replace(definition, update_mode=UpdateMode.CLUSTER_WIDE)
    if name in _PER_BROKER or name.startswith(("ssl.", "sasl.")):
        return replace(definition, update_mode=UpdateMode.PER_BROKER)
    return definition


def _table() -> Mapping[str, Definition]:
    table: dict[str, Definition] = {}
    for definition in (*_HONOURED, *_topic_defaults(), *_DORMANT, *_NOT_HONOURED):
        assert definition.name not in table, f"{definition.name} is listed twice"
        table[definition.name] = _with_update_mode(definition)
    return MappingProxyType(dict(sorted(table.items())))


BROKER_CONFIGS: Final = _table()
"""Every broker config that Kafka knows, by name, in alphabetical order."""

_LISTENER_PREFIX: Final = "listener.name."


def definition_of(name: str) -> Definition | None:
    """Return the definition of ``name``; None for a name that Kafka does not know.

    `listener.name.<listener>.<config>`, and for SASL `listener.name.<listener>.<mechanism>.<config>`,
    override a config on one listener; this version does not honour such overrides.
    """
    definition = BROKER_CONFIGS.get(name)
    if definition is not None or not name.startswith(_LISTENER_PREFIX):
        return definition
    _, _, rest = name.removeprefix(_LISTENER_PREFIX).partition(".")
    base = BROKER_CONFIGS.get(rest) or BROKER_CONFIGS.get(rest.partition(".")[2])
    if base is None:
        return None
    return replace(
        _known(name, base.type, base.default),
        at_least=base.at_least,
        at_most=base.at_most,
        one_of=base.one_of,
    )
