"""Record batches: any columns come back as they went in, and no damage goes unnoticed."""

from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafkalite.protocol.compression import Compression
from kafkalite.protocol.errors import BrokerError, CorruptMessageError
from kafkalite.protocol.record_batch import (
    HEADER_SIZE,
    BatchHeader,
    TimestampRuns,
    batches,
    check_crc,
    decode_batch,
    encode_batch,
    patch_header,
    restamp,
    stamp_log_append_time,
    validate_batch,
    whole_batches_size,
)

relaxed = settings(deadline=None)

payloads = st.one_of(st.none(), st.binary(max_size=40), st.just(b"x" * 300))
header_lists = st.one_of(st.none(), st.lists(st.tuples(st.text(max_size=8), payloads), max_size=3))
times = st.integers(0, 2**60)


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 20))

    def column(element: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(element, min_size=count, max_size=count)

    return {
        "values": draw(column(payloads)),
        "keys": draw(st.one_of(st.none(), column(payloads))),
        "timestamps": draw(st.one_of(times, column(times))),
        "headers": draw(st.one_of(st.none(), column(header_lists))),
        "compression": draw(st.sampled_from(Compression)),
    }


def each(timestamps: int | list[int], count: int) -> list[int]:
    return [timestamps] * count if isinstance(timestamps, int) else timestamps


@relaxed
@given(columns(), st.integers(0, 2**50), st.integers(0, 2**31 - 1))
def test_records_survive_the_way_through_a_leader(
    given_columns: dict[str, Any], base_offset: int, leader_epoch: int
) -> None:
    batch = encode_batch(**given_columns)
    count = len(given_columns["values"])
    header = validate_batch(batch, max_message_bytes=1 << 20, now_ms=0)
    stored = patch_header(batch, base_offset=base_offset, leader_epoch=leader_epoch) + batch[HEADER_SIZE:]
    kept = check_crc(stored)
    assert kept == header._replace(base_offset=base_offset, partition_leader_epoch=leader_epoch)
    assert kept.max_timestamp == max(each(given_columns["timestamps"], count))
    read = decode_batch(stored)
    assert list(read.offsets) == list(range(base_offset, base_offset + count))
    assert each(read.timestamps, count) == each(given_columns["timestamps"], count)
    assert read.keys == given_columns["keys"]
    assert read.values == given_columns["values"]
    assert read.headers == given_columns["headers"]


@relaxed
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), times)
def test_runs_of_timestamps_are_written_as_the_list_that_they_stand_for(steps: list[int], first: int) -> None:
    timestamps = [first + step for step in steps]
    runs = TimestampRuns([], [])
    for index, timestamp in enumerate(timestamps):
        runs.put(index, timestamp)
    values = [b"v"] * len(steps)
    assert encode_batch(values, timestamps=runs) == encode_batch(values, timestamps=timestamps)
    assert [runs.at(index) for index in range(len(steps))] == timestamps
    assert len(runs.starts) == 1 + sum(a != b for a, b in pairwise(steps))


@relaxed
@given(columns(), st.integers(0, 2**62), st.integers(0, 2**15 - 1), st.integers(0, 2**31 - 1))
def test_restamping_equals_making_anew(
    given_columns: dict[str, Any], id_: int, epoch: int, first: int
) -> None:
    producer: dict[str, Any] = {"producer_id": id_, "producer_epoch": epoch, "base_sequence": first}
    batch = encode_batch(**given_columns)
    restamp(batch, **producer)
    assert batch == encode_batch(**given_columns, **producer)
    header = validate_batch(batch, max_message_bytes=1 << 20, now_ms=0)
    assert header.last_sequence == (first + header.record_count - 1) % 2**31


@relaxed
@given(columns(), times)
def test_log_append_time_changes_the_timestamps_and_nothing_else(
    given_columns: dict[str, Any], now_ms: int
) -> None:
    batch = encode_batch(**given_columns)
    stamped = stamp_log_append_time(batch, now_ms) + batch[HEADER_SIZE:]
    check_crc(stamped)
    before, after = decode_batch(batch), decode_batch(stamped)
    assert after.timestamps == now_ms
    assert (after.values, after.keys, after.headers) == (before.values, before.keys, before.headers)


@relaxed
@given(columns(), st.data())
def test_no_damage_goes_unnoticed(given_columns: dict[str, Any], data: st.DataObject) -> None:
    batch = encode_batch(**given_columns)
    damaged = bytearray(batch)
    position = data.draw(st.one_of(st.integers(8, 11), st.integers(16, len(batch) - 1)))
    damaged[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BrokerError):
        validate_batch(damaged, max_message_bytes=1 << 20, now_ms=0)
    size = data.draw(st.integers(0, len(batch) - 1))
    with pytest.raises(CorruptMessageError):
        validate_batch(batch[:size], max_message_bytes=1 << 20, now_ms=0)


@relaxed
@given(columns(), st.data())
def test_a_body_forged_under_a_right_crc_is_refused_or_read(
    given_columns: dict[str, Any], data: st.DataObject
) -> None:
    """Whoever makes the batch makes its CRC too: the rest of the check has to hold alone."""
    batch = encode_batch(**given_columns)
    for _ in range(data.draw(st.integers(1, 3))):
        batch[data.draw(st.integers(21, len(batch) - 1))] = data.draw(st.integers(0, 255))
    fields = BatchHeader.parse(batch)
    restamp(
        batch,
        producer_id=fields.producer_id,
        producer_epoch=fields.producer_epoch,
        base_sequence=fields.base_sequence,
    )
    with suppress(BrokerError):
        header = validate_batch(batch, max_message_bytes=1 << 20, now_ms=0)
        assert len(decode_batch(batch)) == header.record_count


@relaxed
@given(st.lists(st.sampled_from(range(1, 5)), max_size=5), st.data())
def test_a_cut_anywhere_leaves_the_whole_batches_before_it(counts: list[int], data: st.DataObject) -> None:
    made = [bytes(encode_batch([b"v"] * count, timestamps=count)) for count in counts]
    whole = b"".join(made)
    cut = data.draw(st.integers(0, len(whole)))
    ends = [sum(len(batch) for batch in made[: n + 1]) for n in range(len(made))]
    found = list(batches(whole[:cut]))
    assert [batch.position + batch.size for batch in found] == [end for end in ends if end <= cut]
    assert whole_batches_size(memoryview(whole)[:cut]) == max([0, *(end for end in ends if end <= cut)])


@relaxed
@given(st.data())
def test_any_messagepack_as_a_body_is_refused_or_read(data: st.DataObject) -> None:
    leaves = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.binary(), st.text())
    anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=5), max_leaves=20)
    body = msgspec.msgpack.encode(data.draw(st.one_of(anything, st.lists(anything, min_size=5, max_size=5))))
    batch = bytearray(encode_batch([b"a"], timestamps=5)[:HEADER_SIZE]) + body
    batch[8:12] = (len(batch) - 12).to_bytes(4, "big")
    restamp(batch, producer_id=-1, producer_epoch=-1, base_sequence=-1)
    with suppress(BrokerError):
        validate_batch(batch, max_message_bytes=1 << 20, now_ms=0)
        assert len(decode_batch(batch)) == 1
