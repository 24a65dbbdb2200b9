"""The broker's configuration: where settings come from, and what each refusal says."""

import dataclasses
import typing
from pathlib import Path

import pytest

from kafkalite.common import Endpoint
from kafkalite.log.config import TOPIC_CONFIGS
from kafkalite.server.config import (
    BROKER_CONFIGS,
    BrokerConfig,
    ConfigError,
    ConfigType,
    Source,
    Standing,
    UpdateMode,
    definition_of,
)

BASE = {"zookeeper.connect": "localhost:2181"}


def load(**settings: str) -> BrokerConfig:
    """Load settings given as keywords, `num_partitions` for `num.partitions`."""
    return BrokerConfig.load(overrides={**BASE, **{k.replace("_", "."): v for k, v in settings.items()}})


def refusal(**settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- The table ---------------------------------------------------------------------------------

STOCK = """\
# What Kafka ships as config/server.properties.
broker.id=0
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kafka-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.retention.check.interval.ms=300000
zookeeper.connect=localhost:2181
zookeeper.connection.timeout.ms=18000
group.initial.rebalance.delay.ms=0
"""


def test_kafkas_own_server_properties_starts_a_broker(tmp_path: Path) -> None:
    path = tmp_path / "server.properties"
    path.write_text(STOCK)
    config = BrokerConfig.load(path)
    assert (config.broker_id, config.log_dirs) == (0, ("/tmp/kafka-logs",))
    assert config.warnings == ()


def test_every_default_is_a_value_that_its_definition_takes() -> None:
    for definition in BROKER_CONFIGS.values():
        if definition.default is None:
            continue
        text = next(entry.value for entry in load().describe() if entry.name == definition.name)
        if definition.name in BASE:
            continue
        if not definition.is_sensitive:
            assert text is not None
            assert definition.parse(text) == definition.default, definition.name


def test_what_is_honoured_is_read_and_what_is_read_is_honoured() -> None:
    attributes = {field.name.replace("_", ".") for field in dataclasses.fields(BrokerConfig)}
    of_topics = {server.name for topic in TOPIC_CONFIGS.values() for server in topic.server_properties}
    # These come to one attribute together with others.
    folded = {
        "advertised.listeners": "advertised_listeners",
        "listener.security.protocol.map": "listeners",
        "security.inter.broker.protocol": "inter_broker_listener_name",
        "log.dir": "log_dirs",
        "zookeeper.ssl.keystore.type": "zookeeper_ssl_keystore_location",
        "zookeeper.ssl.truststore.type": "zookeeper_ssl_truststore_location",
    }
    honoured = {d.name for d in BROKER_CONFIGS.values() if d.standing is Standing.HONOURED}
    assert honoured - of_topics - set(folded) == (attributes & set(BROKER_CONFIGS)) - of_topics - set(folded)
    assert attributes - set(BROKER_CONFIGS) == {"log.config", "zookeeper.sasl", "settings", "warnings"}


def test_attributes_have_the_types_they_say() -> None:
    config = load(broker_rack="r1")
    for name, hint in typing.get_type_hints(BrokerConfig).items():
        if hint in (int, bool, str):
            assert type(getattr(config, name)) is hint, name


def test_a_feature_that_is_missing_as_a_whole_may_be_configured_and_says_so() -> None:
    config = load(transaction_state_log_min_isr="1")
    shown = {entry.name: entry for entry in config.describe()}
    entry = shown["transaction.state.log.min.isr"]
    assert (entry.value, entry.source) == ("1", Source.STATIC_BROKER)
    assert "transactions" in entry.documentation


def test_sessions_of_groups_have_a_range() -> None:
    config = load(offsets_topic_replication_factor="2", group_min_session_timeout_ms="100")
    assert (config.offsets_topic_replication_factor, config.group_min_session_timeout_ms) == (2, 100)
    assert "at least 1" in refusal(offsets_topic_replication_factor="0")
    assert "at most group.max.session.timeout.ms" in refusal(
        group_min_session_timeout_ms="20", group_max_session_timeout_ms="10"
    )
    # Every append of a coordinator is acks=all.
    assert "not honoured" in refusal(offsets_commit_required_acks="1")


def test_defaults_that_differ_from_kafkas_on_purpose() -> None:
    config = load()
    assert config.listeners == (Endpoint("PLAINTEXT", "127.0.0.1", 9092),)
    assert config.auto_create_topics_enable is False


def test_describe_lists_everything_and_never_a_secret() -> None:
    config = load(zookeeper_ssl_keystore_password="hunter2", num_partitions=" 7 ")
    shown = {entry.name: entry for entry in config.describe()}
    assert list(shown) == sorted(BROKER_CONFIGS)
    assert "hunter2" not in repr(list(shown.values())) + repr(config)
    assert shown["zookeeper.ssl.keystore.password"].is_sensitive
    partitions = shown["num.partitions"]
    assert (partitions.value, partitions.source, partitions.type) == (
        "7",
        Source.STATIC_BROKER,
        ConfigType.INT,
    )
    assert partitions.is_read_only
    assert (shown["broker.rack"].value, shown["broker.rack"].source) == (None, Source.DEFAULT)
    assert shown["auto.leader.rebalance.enable"].value == "true"
    assert not shown["log.retention.ms"].is_read_only
    assert shown["listeners"].update_mode is UpdateMode.PER_BROKER
    assert all(entry.documentation for entry in shown.values())


# --- Sources -----------------------------------------------------------------------------------


def test_an_override_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    path = tmp_path / "server.properties"
    path.write_text("zookeeper.connect=z:1\nnum.partitions=1\nbroker.id=1\nlog.retention.ms=1\n")
    environ = {"KAFKALITE_NUM_PARTITIONS": "2", "KAFKALITE_BROKER_ID": "2", "PATH": "/bin", "LOG_DIRS": "x"}
    config = BrokerConfig.load(path, environ, {"num.partitions": "3"})
    assert (config.num_partitions, config.broker_id, config.log_config.retention_ms) == (3, 2, 1)
    assert config.settings["num.partitions"].origin == "--override"


def test_a_refusal_names_where_the_value_was_set(tmp_path: Path) -> None:
    path = tmp_path / "server.properties"
    path.write_text("zookeeper.connect=z:1\nnum.partitions=none\n")
    with pytest.raises(
        ConfigError, match=f"^num.partitions=none \\({path}\\): must be a whole number, at least 1$"
    ):
        BrokerConfig.load(path)
    with pytest.raises(ConfigError, match="environment variable KAFKALITE_NUM_PARTITIONS"):
        BrokerConfig.load(path, {"KAFKALITE_NUM_PARTITIONS": "0"})


def test_an_unknown_name_is_a_warning_in_a_file_with_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "server.properties"
    path.write_text("zookeeper.connect=z:1\nnum.partition=4\n")
    config = BrokerConfig.load(path)
    assert config.num_partitions == 1
    (warning,) = config.warnings
    assert "num.partition " in warning
    assert "did you mean num.partitions?" in warning


def test_an_unknown_name_is_refused_where_it_was_meant_for_us() -> None:
    with pytest.raises(
        ConfigError, match=r"KAFKALITE_NUM_PARTITION .*did you mean KAFKALITE_NUM_PARTITIONS\?"
    ):
        BrokerConfig.load(None, {"KAFKALITE_NUM_PARTITION": "1"}, BASE)
    assert "did you mean log.retention.ms?" in refusal(log_retention_msec="1")


def test_a_file_that_repeats_a_name_warns_and_takes_the_last(tmp_path: Path) -> None:
    path = tmp_path / "server.properties"
    path.write_text("zookeeper.connect=z:1\nbroker.id=1\nbroker.id=2\n")
    config = BrokerConfig.load(path)
    assert config.broker_id == 2
    assert "broker.id is set more than once" in config.warnings[0]


def test_java_properties_syntax(tmp_path: Path) -> None:
    path = tmp_path / "server.properties"
    path.write_text("! comment\nzookeeper.connect : a:1,\\\n   b:2\nbroker.rack r\\u00e4ck\n")
    config = BrokerConfig.load(path)
    assert (config.zookeeper_connect, config.broker_rack) == ("a:1,b:2", "räck")


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: No such file"):
        BrokerConfig.load(tmp_path / "nowhere")


# --- Standing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("num.io.threads", "16", "not honoured by this version; leave it at its default, 8"),
        ("authorizer.class.name", "kafka.security.authorizer.AclAuthorizer", "leave it unset"),
        ("replica.selector.class", "x", "leave it unset"),
        ("log.preallocate", "true", "not honoured"),
        ("log.cleanup.policy", "compact", "it honours delete"),
        ("compression.type", "zstd", "it honours producer"),
        ("listener.name.internal.ssl.client.auth", "required", "leave it at its default, none"),
        ("listener.name.sasl.plain.sasl.jaas.config", "secret", "[hidden]"),
        ("control.plane.listener.name", "CONTROL", "leave it unset"),
        ("inter.broker.protocol.version", "2.8", "leave it at its default, 3.9-IV0"),
        ("process.roles", "broker,controller", "not honoured"),
        ("ssl.keystore.password", "secret", "[hidden]"),
    ],
)
def test_what_is_not_honoured_is_refused_unless_it_is_the_default(name: str, value: str, words: str) -> None:
    message = refusal(**{name.replace(".", "_"): value}) if "_" not in name else ""
    assert message.startswith(f"{name}=")
    assert words in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num.io.threads", "8"),
        ("num.io.threads", " +8 "),
        ("ssl.client.auth", "none"),
        ("replica.selector.class", ""),
        ("inter.broker.protocol.version", "3.9"),
        ("log.cleanup.policy", "delete"),
        ("log.cleaner.enable", "TRUE"),
        ("ssl.enabled.protocols", "TLSv1.2, TLSv1.3"),
        ("listener.name.internal.ssl.client.auth", "none"),
        ("zookeeper.clientCnxnSocket", "org.apache.zookeeper.ClientCnxnSocketNetty"),
    ],
)
def test_a_default_in_any_spelling_is_accepted(name: str, value: str) -> None:
    BrokerConfig.load(overrides={**BASE, name: value})


def test_listener_prefixed_names_are_known_by_what_they_override() -> None:
    assert definition_of("listener.name.internal.max.connections") is not None
    assert definition_of("listener.name.internal.scram-sha-256.sasl.jaas.config") is not None
    assert definition_of("listener.name.internal.nonsense") is None


# --- Types and ranges --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("num.partitions", "0", "must be at least 1"),
        ("num.partitions", "1.5", "must be a whole number, at least 1"),
        ("num.partitions", "²", "must be a whole number"),
        ("num.partitions", "1_000", "must be a whole number"),
        ("num.partitions", "", "must be a whole number"),
        ("num.partitions", "2147483648", "must fit 32 bits"),
        ("default.replication.factor", "40000", "must be from 1 to 32767"),
        ("delete.topic.enable", "yes", "must be true or false"),
        ("log.cleaner.io.buffer.load.factor", "most", "must be a number"),
        ("metrics.recording.level", "WARN", "must be one of INFO, DEBUG, TRACE"),
        ("fetch.max.bytes", "1023", "must be at least 1024"),
        ("broker.id", "1001", "must be from -1 (generate one) to reserved.broker.max.id, which is 1000"),
        ("broker.id", "-2", "must be from -1"),
        ("zookeeper.connect", "", "required"),
        ("zookeeper.connect", "host:port", "is not host:port"),
        ("zookeeper.connect", "a:2181,,b:2181", "is not host:port"),
        ("zookeeper.connect", "a:2181/kafka/", "no path for a chroot"),
        ("zookeeper.connect", "a:2181/", "no path for a chroot"),
        ("zookeeper.ssl.keystore.location", "/k.jks", "PEM"),
        ("zookeeper.ssl.truststore.type", "JKS", "PEM"),
        ("log.dirs", " , ", "at least one directory"),
        ("log.dirs", "/a,/b,/a/", "names a directory twice"),
        ("log.retention.ms", "0", "must be at least 1, or -1 for no limit"),
        ("log.retention.hours", "week", "whole number"),
        ("log.roll.ms", "0", "must be at least 1"),
        ("log.segment.bytes", "13", "must be at least 14"),
        ("min.insync.replicas", "0", "must be at least 1"),
        ("log.message.timestamp.type", "Now", "must be one of CreateTime, LogAppendTime"),
        ("replica.fetch.wait.max.ms", "30001", "must be at most replica.socket.timeout.ms, which is 30000"),
        ("replica.lag.time.max.ms", "499", "must be at least replica.fetch.wait.max.ms, which is 500"),
    ],
)
def test_a_bad_value_says_which_why_and_what_is_allowed(name: str, value: str, words: str) -> None:
    message = refusal(**{name.replace(".", "_"): value})
    assert message.startswith(f"{name}={value.strip()} (--override): ")
    assert words in message


def test_zookeeper_connect_is_required() -> None:
    with pytest.raises(ConfigError, match=r"^zookeeper.connect: required"):
        BrokerConfig.load()


@pytest.mark.parametrize(
    "connect", ["h", "h:1", "h1:1,h2:2,h3:3", "h1:1,h2:2/kafka/a", "[::1]:2181", "h/kafka"]
)
def test_zookeeper_connect_in_its_forms(connect: str) -> None:
    assert load(zookeeper_connect=connect).zookeeper_connect == connect


def test_an_id_must_be_set_where_none_is_generated() -> None:
    assert load(broker_id="5000", broker_id_generation_enable="false").broker_id == 5000
    assert "must be at least 0" in refusal(broker_id="-1", broker_id_generation_enable="false")


def test_topics_inherit_the_finest_unit_that_is_set() -> None:
    config = load(
        log_retention_hours="1", log_retention_minutes="2", log_roll_hours="3", message_max_bytes="99"
    )
    assert config.log_config.retention_ms == 120_000
    assert config.log_config.segment_ms == 3 * 3_600_000
    assert config.message_max_bytes == config.log_config.max_message_bytes == 99


def test_log_dirs_beat_log_dir() -> None:
    assert load(log_dir="/one").log_dirs == ("/one",)
    assert load(log_dir="/one", log_dirs="/two, /three").log_dirs == ("/two", "/three")


def test_zookeepers_session_gets_what_was_set() -> None:
    config = load(
        zookeeper_session_timeout_ms="6000",
        zookeeper_ssl_client_enable="true",
        zookeeper_ssl_keystore_location="/b.pem",
        zookeeper_ssl_keystore_password="p",
        zookeeper_ssl_truststore_location="/ca",
        zookeeper_ssl_truststore_type="PEM",
        zookeeper_ssl_endpoint_identification_algorithm="",
    )
    session = config.zookeeper_config()
    assert (session.session_timeout_ms, session.connection_timeout_ms) == (6000, 6000)
    assert session.tls is not None
    assert (session.tls.ca_file, session.tls.cert_file, session.tls.key_password) == ("/ca", "/b.pem", "p")
    assert not session.tls.check_hostname
    assert load().zookeeper_config().tls is None


# --- Listeners ---------------------------------------------------------------------------------


def test_several_listeners_and_what_is_advertised() -> None:
    config = load(
        listeners="internal://127.0.0.1:0, EXTERNAL://:9094",
        advertised_listeners="EXTERNAL://broker.example.org:19094,INTERNAL://127.0.0.1:0",
        listener_security_protocol_map="INTERNAL:PLAINTEXT,EXTERNAL:plaintext",
        inter_broker_listener_name="Internal",
    )
    assert [endpoint.listener for endpoint in config.listeners] == ["INTERNAL", "EXTERNAL"]
    assert config.inter_broker_listener_name == "INTERNAL"
    assert config.advertise({"INTERNAL": 4711, "EXTERNAL": 9094}, "here") == (
        Endpoint("EXTERNAL", "broker.example.org", 19094),
        Endpoint("INTERNAL", "127.0.0.1", 4711),
    )
    (warning,) = config.warnings
    assert "EXTERNAL binds to every interface and nothing authenticates" in warning


def test_a_blank_host_is_advertised_under_the_machines_name() -> None:
    config = load(listeners="PLAINTEXT://:9092")
    assert config.advertise({"PLAINTEXT": 9092}, "here") == (Endpoint("PLAINTEXT", "here", 9092),)


def test_brackets_around_ipv6_are_taken_off_and_one_port_may_serve_both_families() -> None:
    config = load(
        listeners="A://[::1]:9092,B://127.0.0.1:9092",
        listener_security_protocol_map="A:PLAINTEXT,B:PLAINTEXT",
        inter_broker_listener_name="A",
    )
    assert config.listeners[0].host == "::1"
    assert config.warnings == ()


MAPPED = {
    "listener.security.protocol.map": "A:PLAINTEXT,B:PLAINTEXT,S:SASL_SSL",
    "inter.broker.listener.name": "A",
}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"listeners": ""}, "must name at least one listener"),
        ({"listeners": "A://h"}, "'A://h' is not NAME://host:port"),
        ({"listeners": "A://h:99999"}, "there is no port 99999"),
        ({"listeners": "A://h:-1"}, "is not NAME://host:port"),
        ({"listeners": "A://h:1,A://h:2"}, "listener A is named twice"),
        ({"listeners": "A://h:1,B://i:1"}, "listeners A and B have the same port, 1"),
        ({"listeners": "C://h:1"}, "listener C has no security protocol"),
        ({"listeners": "S://h:1"}, "listener S speaks SASL_SSL; this version speaks PLAINTEXT only"),
        ({"listeners": "B://h:1"}, "brokers would talk over listener A, which is not advertised (B)"),
        ({"listeners": "A://h:1", "advertised.listeners": "B://h:1"}, "B is not in listeners, which names A"),
        ({"listeners": "A://0.0.0.0:1"}, "set advertised.listeners"),
        ({"listeners": "A://[::]:1"}, "cannot be advertised"),
        ({"listeners": "A://h:1", "advertised.listeners": "A://0.0.0.0:1"}, "cannot be advertised"),
        ({"listener.security.protocol.map": "A=PLAINTEXT"}, "is not LISTENER:PROTOCOL"),
        ({"listener.security.protocol.map": "A:TLS"}, "TLS is no security protocol"),
        ({"listener.security.protocol.map": "A:PLAINTEXT,A:SSL"}, "mapped twice"),
        (
            {"inter.broker.listener.name": "X", "listeners": "A://h:1"},
            "X is not in listener.security.protocol.map",
        ),
        ({"security.inter.broker.protocol": "PLAINTEXT", "listeners": "A://h:1"}, "only one of"),
    ],
)
def test_listeners_that_cannot_work_are_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BrokerConfig.load(overrides={**BASE, **MAPPED, **settings})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_listeners_with_port_0_do_not_clash_and_0_0_0_0_may_be_bound() -> None:
    config = BrokerConfig.load(
        overrides={
            **BASE,
            **MAPPED,
            "listeners": "A://0.0.0.0:0,B://h:0",
            "advertised.listeners": "A://h:0",
        }
    )
    assert [endpoint.port for endpoint in config.listeners] == [0, 0]


def test_a_security_protocol_can_name_the_inter_broker_listener() -> None:
    assert load(security_inter_broker_protocol="PLAINTEXT").inter_broker_listener_name == "PLAINTEXT"
    assert "which is not advertised" in refusal(security_inter_broker_protocol="SSL")
