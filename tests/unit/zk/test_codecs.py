"""Every record as Kafka writes it, older versions, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kafkalite.common import (
    BrokerId,
    ControllerEpoch,
    Endpoint,
    LeaderAndIsr,
    LeaderEpoch,
    PartitionEpoch,
    TopicPartition,
    Uuid,
)
from zk import codecs
from zk.codecs import (
    AccessRule,
    AclChange,
    BadRecord,
    BrokerRegistration,
    ConfigChange,
    ControllerRecord,
    DelegationToken,
    Features,
    LogDirEvent,
    ProducerIdBlock,
    TopicRecord,
)

TP = TopicPartition("t", 0)
TOPIC_ID = Uuid("Yx5xvQ9ESSS0kqTmUqIVTw")


def ids(*numbers: int) -> tuple[BrokerId, ...]:
    return tuple(BrokerId(number) for number in numbers)


BROKER = BrokerRegistration(
    BrokerId(1),
    (Endpoint("PLAINTEXT", "b1.example", 9092), Endpoint("TLS", "::1", 9093, "SSL")),
    "r1",
    1700000000000,
)
TOPIC = TopicRecord(TOPIC_ID, {0: ids(3, 4, 1, 2), 1: ids(2, 3)}, {0: ids(3, 4)}, {0: ids(1, 2)})
STATE = LeaderAndIsr(
    BrokerId(3), LeaderEpoch(12), ids(3, 4), ControllerEpoch(7), PartitionEpoch(5), leader_recovery_state=0
)
TOKEN = DelegationToken(
    "Uu9Z", "User:alice", "User:alice", ("User:bob",), 1700000000000, 1700604800000, 1700086400000
)


@pytest.mark.parametrize(
    ("encode", "record", "text", "decode"),
    [
        (
            codecs.encode_controller,
            ControllerRecord(BrokerId(1), 1700000000123),
            b'{"version":2,"brokerid":1,"timestamp":"1700000000123","kraftControllerEpoch":-1}',
            codecs.decode_controller,
        ),
        (codecs.encode_controller_epoch, ControllerEpoch(7), b"7", codecs.decode_controller_epoch),
        (
            codecs.encode_broker,
            BROKER,
            b'{"version":5,"host":"b1.example","port":9092,"jmx_port":-1,"timestamp":"1700000000000",'
            b'"endpoints":["PLAINTEXT://b1.example:9092","TLS://[::1]:9093"],"rack":"r1",'
            b'"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT","TLS":"SSL"},"features":{}}',
            lambda data: codecs.decode_broker(BrokerId(1), data),
        ),
        (
            codecs.encode_topic,
            TOPIC,
            b'{"version":3,"topic_id":"Yx5xvQ9ESSS0kqTmUqIVTw","partitions":{"0":[3,4,1,2],"1":[2,3]},'
            b'"adding_replicas":{"0":[3,4]},"removing_replicas":{"0":[1,2]}}',
            lambda data: codecs.decode_topic("t", data),
        ),
        (
            codecs.encode_partition_state,
            STATE,
            b'{"controller_epoch":7,"leader":3,"version":1,"leader_epoch":12,"isr":[3,4]}',
            lambda data: codecs.decode_partition_state(TP, data, zk_version=5),
        ),
        (
            codecs.encode_cluster_id,
            Uuid("4L6g3nShT-eMCtK--X86sw"),
            b'{"version":"1","id":"4L6g3nShT-eMCtK--X86sw"}',
            codecs.decode_cluster_id,
        ),
        (
            codecs.encode_config,
            {"retention.ms": "60000", "cleanup.policy": "compact"},
            b'{"version":1,"config":{"retention.ms":"60000","cleanup.policy":"compact"}}',
            lambda data: codecs.decode_config("/config/topics/t", data),
        ),
        (
            codecs.encode_config_change,
            ConfigChange("users/alice/clients/app-1"),
            b'{"version":2,"entity_path":"users/alice/clients/app-1"}',
            lambda data: codecs.decode_config_change("/config/changes/config_change_0", data),
        ),
        (
            codecs.encode_reassignment,
            {TP: ids(3, 4)},
            b'{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[3,4]}]}',
            codecs.decode_reassignment,
        ),
        (
            codecs.encode_preferred_replica_election,
            (TP,),
            b'{"version":1,"partitions":[{"topic":"t","partition":0}]}',
            codecs.decode_preferred_replica_election,
        ),
        (
            codecs.encode_isr_change,
            (TP,),
            b'{"version":1,"partitions":[{"topic":"t","partition":0}]}',
            lambda data: codecs.decode_isr_change("/x", data),
        ),
        (
            codecs.encode_log_dir_event,
            LogDirEvent(BrokerId(2)),
            b'{"version":1,"broker":2,"event":1}',
            lambda data: codecs.decode_log_dir_event("/x", data),
        ),
        (
            codecs.encode_producer_id_block,
            ProducerIdBlock(BrokerId(1), 3000, 3999),
            b'{"version":1,"broker":1,"block_start":"3000","block_end":"3999"}',
            codecs.decode_producer_id_block,
        ),
        (
            codecs.encode_features,
            Features(True, {"f": 3}),
            b'{"version":2,"status":1,"features":{"f":{"max_version_level":3}}}',
            codecs.decode_features,
        ),
        (
            codecs.encode_acls,
            (AccessRule("User:alice", "Allow", "Read", "*"),),
            b'{"version":1,"acls":[{"principal":"User:alice","permissionType":"Allow","operation":"Read","host":"*"}]}',
            lambda data: codecs.decode_acls("/x", data),
        ),
        (
            codecs.encode_acl_change,
            AclChange("TOPIC", "my:topic"),
            b"TOPIC:my:topic",
            lambda data: codecs.decode_acl_change("/kafka-acl-changes/acl_changes_0", data),
        ),
        (
            codecs.encode_acl_change,
            AclChange("TOPIC", "pre-", "PREFIXED"),
            b'{"version":1,"resourceType":"TOPIC","name":"pre-","patternType":"PREFIXED"}',
            lambda data: codecs.decode_acl_change("/kafka-acl-extended-changes/acl_changes_0", data),
        ),
        (
            codecs.encode_delegation_token,
            TOKEN,
            b'{"version":3,"owner":"User%3Aalice","tokenRequester":"User%3Aalice","renewers":["User%3Abob"],'
            b'"issueTimestamp":1700000000000,"maxTimestamp":1700604800000,"expiryTimestamp":1700086400000,'
            b'"tokenId":"Uu9Z"}',
            lambda data: codecs.decode_delegation_token("/x", data),
        ),
        (
            codecs.encode_consumer_offset,
            2**40,
            b"1099511627776",
            lambda data: codecs.decode_consumer_offset("/x", data),
        ),
    ],
)
def test_records_are_written_as_kafka_does_and_come_back(
    encode: Callable[[Any], bytes], record: Any, text: bytes, decode: Callable[[bytes], Any]
) -> None:
    assert encode(record) == text
    assert decode(text) == record


def test_what_is_optional_is_left_out() -> None:
    bare = BrokerRegistration(BrokerId(1), (Endpoint("TLS", "h", 1, "SSL"),))
    assert b'"rack"' not in codecs.encode_broker(bare)
    assert b'"host":null,"port":-1' in codecs.encode_broker(bare)
    assert b"topic_id" not in codecs.encode_topic(TopicRecord(None, {0: ids(1)}))
    recovering = LeaderAndIsr(
        BrokerId(1), LeaderEpoch(0), ids(1), ControllerEpoch(1), PartitionEpoch(0), leader_recovery_state=1
    )
    data = codecs.encode_partition_state(recovering)
    assert data.endswith(b'"leader_recovery_state":1}')
    assert codecs.decode_partition_state(TP, data, zk_version=0) == recovering


@pytest.mark.parametrize(
    ("data", "endpoints", "rack"),
    [
        (
            b'{"jmx_port":9999,"timestamp":"2233345666","host":"localhost","version":1,"port":9092}',
            (Endpoint("PLAINTEXT", "localhost", 9092),),
            None,
        ),
        (
            b'{"version":2,"host":"localhost","port":9092,"jmx_port":9999,"timestamp":"2233345666",'
            b'"endpoints":["PLAINTEXT://host1:9092","SSL://host1:9093"]}',
            (Endpoint("PLAINTEXT", "host1", 9092), Endpoint("SSL", "host1", 9093, "SSL")),
            None,
        ),
        (
            b'{"version":3,"host":"localhost","port":9092,"jmx_port":9999,"timestamp":"2233345666",'
            b'"endpoints":["PLAINTEXT://[::1]:9092"],"rack":"dc1"}',
            (Endpoint("PLAINTEXT", "::1", 9092),),
            "dc1",
        ),
        (
            b'{"version":4,"host":"localhost","port":9092,"jmx_port":9999,"timestamp":"2233345666",'
            b'"endpoints":["CLIENT://host1:9092"],"listener_security_protocol_map":{"CLIENT":"SSL"},"rack":"dc1"}',
            (Endpoint("CLIENT", "host1", 9092, "SSL"),),
            "dc1",
        ),
        (
            b'{"version":9,"endpoints":["A://h:1"],"listener_security_protocol_map":{"A":"PLAINTEXT"},"new":[]}',
            (Endpoint("A", "h", 1),),
            None,
        ),
    ],
)
def test_older_and_newer_registrations_are_read(
    data: bytes, endpoints: tuple[Endpoint, ...], rack: str | None
) -> None:
    found = codecs.decode_broker(BrokerId(1), data)
    assert (found.endpoints, found.rack) == (endpoints, rack)


def test_older_topics_are_read() -> None:
    plain = TopicRecord(None, {0: ids(1, 2)})
    assert codecs.decode_topic("t", b'{"version":1,"partitions":{"0":[1,2]}}') == plain
    assert codecs.decode_topic(
        "t", b'{"partitions":{"0":[1,2]},"version":2,"adding_replicas":{"0":[2]}}'
    ) == (TopicRecord(None, {0: ids(1, 2)}, {0: ids(2)}))


def test_older_records_of_other_kinds_are_read() -> None:
    assert codecs.decode_controller(b'{"version":1,"brokerid":3,"timestamp":"5"}') == (
        ControllerRecord(BrokerId(3), 5)
    )
    assert codecs.decode_controller(b'{"brokerid":3}').broker_id == 3
    assert codecs.decode_config_change("/x", b'{"version":1,"entity_type":"topics","entity_name":"t"}') == (
        ConfigChange("topics/t")
    )
    assert codecs.decode_features(
        b'{"version":1,"status":0,"features":{"f":{"min_version_level":1,"max_version_level":2}}}'
    ) == Features(False, {"f": 2})
    assert codecs.decode_producer_id_block(b"") is None
    assert codecs.decode_config("/config/topics/t", b"") == {}
    old_token = codecs.decode_delegation_token(
        "/x",
        b'{"version":1,"owner":"User%3Aalice","renewers":[],"issueTimestamp":1,"maxTimestamp":2,'
        b'"expiryTimestamp":3,"tokenId":"i"}',
    )
    assert old_token.requester == "User:alice"


def state(text: str) -> Callable[[], object]:
    return lambda: codecs.decode_partition_state(TP, text.encode(), zk_version=0)


def topic(text: str) -> Callable[[], object]:
    return lambda: codecs.decode_topic("t", text.encode())


def broker(text: str) -> Callable[[], object]:
    return lambda: codecs.decode_broker(BrokerId(1), text.encode())


@pytest.mark.parametrize(
    ("decode", "reason"),
    [
        (topic(""), "/brokers/topics/t: no data"),
        (topic("{"), "/brokers/topics/t: "),
        (topic("[]"), "Expected `object`"),
        (topic('{"version":1}'), "partitions"),
        (topic('{"partitions":{"0":"1"}}'), "Expected `array`"),
        (topic('{"partitions":{"0":[1.5]}}'), "Expected `int`"),
        (topic('{"partitions":{"00":[1]}}'), "'00' is not a partition"),
        (topic('{"partitions":{"-1":[1]}}'), "'-1' is not a partition"),
        (topic('{"partitions":{"\\u0661":[1]}}'), "is not a partition"),
        (topic('{"partitions":{"0":[]}}'), "partition 0 has no replicas"),
        (topic('{"partitions":{"0":[1,1]}}'), "names a broker twice"),
        (topic('{"partitions":{"0":[-1]}}'), "broker id"),
        (topic('{"partitions":{"0":[1]},"topic_id":"short"}'), "topic_id"),
        (state('{"leader":1,"leader_epoch":0,"isr":[1]}'), "controller_epoch"),
        (state('{"leader":"1","leader_epoch":0,"isr":[1],"controller_epoch":1}'), "leader"),
        (state('{"leader":-3,"leader_epoch":0,"isr":[1],"controller_epoch":1}'), "leader -3"),
        (state('{"leader":1,"leader_epoch":-1,"isr":[1],"controller_epoch":1}'), "leader_epoch -1"),
        (state('{"leader":1,"leader_epoch":0,"isr":[1,1],"controller_epoch":1}'), "isr names a broker twice"),
        (
            state('{"leader":1,"leader_epoch":0,"isr":[1],"controller_epoch":1,"leader_recovery_state":2}'),
            "neither 0 nor 1",
        ),
        (broker('{"version":0}'), "version 0"),
        (broker('{"version":1}'), "no host"),
        (broker('{"version":4}'), "no endpoints"),
        (broker('{"version":4,"endpoints":["nonsense"]}'), "not LISTENER://host:port"),
        (
            broker('{"version":4,"endpoints":["A://h:99999"],"listener_security_protocol_map":{}}'),
            "no such port",
        ),
        (broker('{"version":2,"endpoints":["A://h:1"]}'), "listener A has no security protocol"),
        (broker('{"version":5,"endpoints":[],"timestamp":"x"}'), "timestamp"),
        (lambda: codecs.decode_controller(b'{"version":2}'), "brokerid"),
        (lambda: codecs.decode_controller(b'{"brokerid":1,"timestamp":"99999999999999999999"}'), "64 bits"),
        (lambda: codecs.decode_controller_epoch(b"-1"), "not a number"),
        (lambda: codecs.decode_controller_epoch(b" 1"), "not a number"),
        (lambda: codecs.decode_controller_epoch(b"99999999999"), "not a number"),
        (lambda: codecs.decode_cluster_id(b'{"id":""}'), "empty"),
        (lambda: codecs.decode_config("/c", b'{"version":2,"config":{}}'), "version 2"),
        (lambda: codecs.decode_config("/c", b'{"version":1,"config":{"a":1}}'), "Expected `str`"),
        (lambda: codecs.decode_config("/c", b'{"version":1,"config":{"a":"\xff"}}'), "/c: "),
        (lambda: codecs.decode_config_change("/c", b'{"version":3}'), "version 3"),
        (lambda: codecs.decode_config_change("/c", b'{"version":2,"entity_path":"pets/x"}'), "entity_path"),
        (
            lambda: codecs.decode_config_change("/c", b'{"version":1,"entity_type":"users"}'),
            "version 1 names",
        ),
        (
            lambda: codecs.decode_producer_id_block(
                b'{"version":1,"broker":1,"block_start":"9","block_end":"8"}'
            ),
            "block from 9 to 8",
        ),
        (lambda: codecs.decode_features(b'{"version":3,"status":1,"features":{}}'), "version 3"),
        (lambda: codecs.decode_features(b'{"version":2,"status":2,"features":{}}'), "status 2"),
        (
            lambda: codecs.decode_features(b'{"version":2,"status":1,"features":{"f":{}}}'),
            "max_version_level",
        ),
        (lambda: codecs.decode_acl_change("/kafka-acl-changes/x", b"TOPIC"), "TYPE:name"),
        (
            lambda: codecs.decode_isr_change("/n", b'{"partitions":[{"topic":"t","partition":-1}]}'),
            "partition -1",
        ),
    ],
)
def test_what_is_no_record_is_refused_with_its_path_and_the_reason(
    decode: Callable[[], object], reason: str
) -> None:
    with pytest.raises(BadRecord) as caught:
        decode()
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"{caught.value.path}: ")
