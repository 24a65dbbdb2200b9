"""What is encoded is decoded; what is not a record raises BadRecord and nothing else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from zk import codecs, paths
from zk.codecs import BadRecord, BrokerRegistration, TopicRecord

INT32 = st.integers(0, 2**31 - 1)
BROKER_IDS = st.lists(INT32.map(BrokerId), unique=True, max_size=6).map(tuple)
ASSIGNMENTS = st.dictionaries(INT32, BROKER_IDS.filter(bool), max_size=6)
TOPIC_IDS = st.sampled_from([None, Uuid("Yx5xvQ9ESSS0kqTmUqIVTw")])
NAMES = st.text("ABCxyz_-09", min_size=1, max_size=8)
HOSTS = st.one_of(st.from_regex(r"[a-z0-9\-.]{1,12}", fullmatch=True), st.ip_addresses(v=6).map(str))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TP = TopicPartition("t", 0)


@given(TOPIC_IDS, ASSIGNMENTS, ASSIGNMENTS, ASSIGNMENTS)
def test_topics_come_back(
    topic_id: Uuid | None,
    assignment: dict[int, tuple[BrokerId, ...]],
    adding: dict[int, tuple[BrokerId, ...]],
    removing: dict[int, tuple[BrokerId, ...]],
) -> None:
    record = TopicRecord(topic_id, assignment, adding, removing)
    found = codecs.decode_topic("t", codecs.encode_topic(record))
    assert found == record
    assert list(found.assignment) == sorted(assignment)


@given(st.integers(-2, 2**31 - 1), INT32, BROKER_IDS, INT32, INT32, st.integers(0, 1))
def test_partition_states_come_back(
    leader: int,
    leader_epoch: int,
    isr: tuple[BrokerId, ...],
    controller_epoch: int,
    version: int,
    recovery: int,
) -> None:
    state = LeaderAndIsr(
        BrokerId(leader),
        LeaderEpoch(leader_epoch),
        isr,
        ControllerEpoch(controller_epoch),
        PartitionEpoch(version),
        recovery,
    )
    data = codecs.encode_partition_state(state)
    assert codecs.decode_partition_state(TP, data, zk_version=version) == state


@given(
    st.lists(
        st.builds(Endpoint, NAMES, HOSTS, st.integers(0, 65535), st.sampled_from(codecs.SECURITY_PROTOCOLS)),
        unique_by=lambda endpoint: endpoint.listener,
        max_size=4,
    ),
    st.none() | TEXT,
    st.integers(-1, 2**62),
    st.dictionaries(TEXT, st.tuples(INT32, INT32), max_size=3),
)
def test_registrations_come_back(
    endpoints: list[Endpoint], rack: str | None, timestamp_ms: int, features: dict[str, tuple[int, int]]
) -> None:
    record = BrokerRegistration(BrokerId(1), tuple(endpoints), rack, timestamp_ms, features=features)
    assert codecs.decode_broker(BrokerId(1), codecs.encode_broker(record)) == record


@given(st.dictionaries(TEXT, TEXT, max_size=5))
def test_configs_come_back(config: dict[str, str]) -> None:
    assert codecs.decode_config("/c", codecs.encode_config(config)) == config


@given(TEXT.filter(bool))
def test_encoded_names_are_one_step_of_a_path_and_come_back(name: str) -> None:
    encoded = paths.sanitize(name)
    assert "/" not in encoded
    assert encoded.isascii()
    assert paths.desanitize(encoded) == name


FIELDS = st.sampled_from(
    sorted({name for shape in vars(codecs).values() for name in getattr(shape, "__struct_fields__", ())})
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(FIELDS | TEXT, children, max_size=8),
    max_leaves=20,
)
DECODERS: list[Callable[[bytes], Any]] = [
    codecs.decode_controller,
    codecs.decode_controller_epoch,
    lambda data: codecs.decode_broker(BrokerId(1), data),
    lambda data: codecs.decode_topic("t", data),
    lambda data: codecs.decode_partition_state(TP, data, zk_version=0),
    codecs.decode_cluster_id,
    codecs.decode_features,
    lambda data: codecs.decode_config("/x", data),
    lambda data: codecs.decode_config_change("/x", data),
    codecs.decode_reassignment,
    codecs.decode_preferred_replica_election,
    lambda data: codecs.decode_isr_change("/x", data),
    lambda data: codecs.decode_log_dir_event("/x", data),
    codecs.decode_producer_id_block,
    lambda data: codecs.decode_acls("/x", data),
    lambda data: codecs.decode_acl_change("/kafka-acl-changes/x", data),
    lambda data: codecs.decode_acl_change("/kafka-acl-extended-changes/x", data),
    lambda data: codecs.decode_delegation_token("/x", data),
]


@pytest.mark.parametrize("decode", DECODERS)
@settings(max_examples=50)
@given(data=st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_rubbish_is_a_bad_record_and_nothing_worse(decode: Callable[[bytes], Any], data: bytes) -> None:
    with contextlib.suppress(BadRecord):
        decode(data)
