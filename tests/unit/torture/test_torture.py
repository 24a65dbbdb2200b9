"""The parts of a torture run that need no cluster."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import pytest

from kafkalite.checker.promise import Mode
from kafkalite.common import Address, BrokerId, TopicPartition
from kafkalite.journal import Event, EventId
from kafkalite.torture.faults import NoEffect, harm
from kafkalite.torture.judgement import two_rulers
from kafkalite.torture.links import BrokerProxy, Cut
from kafkalite.torture.replicas import first_difference
from kafkalite.torture.schedule import KINDS, plan
from kafkalite.torture.workload import RECORD_BYTES, number_of, producer_plans, value_of
from kafkalite.why import History

# --- the schedule ------------------------------------------------------------------------


def test_a_seed_is_one_schedule() -> None:
    def first(seed: int) -> list[object]:
        return list(itertools.islice(plan(random.Random(seed), tuple(KINDS)), 50))

    assert first(7) == first(7)
    assert first(7) != first(8)


def test_every_kind_has_its_turn_in_each_round() -> None:
    rounds = list(itertools.islice(plan(random.Random(3), tuple(KINDS)), 3 * len(KINDS)))
    for begin in range(0, len(rounds), len(KINDS)):
        assert {one.kind for one in rounds[begin : begin + len(KINDS)]} == set(KINDS)


def test_faults_last_as_long_as_their_kind_says_and_never_overlap_what_is_to_be_alone() -> None:
    for one in itertools.islice(plan(random.Random(5), tuple(KINDS)), 500):
        kind = KINDS[one.kind]
        assert kind.lasts_s[0] <= one.lasts_s <= kind.lasts_s[1]
        assert one.way in kind.ways
        assert not (kind.alone and one.overlaps)


def test_only_the_kinds_asked_for() -> None:
    assert {one.kind for one in itertools.islice(plan(random.Random(1), ("kill", "pause")), 20)} == {
        "kill",
        "pause",
    }


# --- records -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 9, 123_456_789])
def test_a_record_is_known_by_its_number(number: int) -> None:
    assert len(value_of(number)) == RECORD_BYTES
    assert number_of(value_of(number)) == number


@pytest.mark.parametrize("value", [None, b"", b"12", value_of(12)[:-1], value_of(12)[:-1] + b"x"])
def test_what_no_producer_wrote_is_no_record(value: bytes | None) -> None:
    assert number_of(value) == -1


def test_producers_write_as_the_acks_say() -> None:
    assert [one.mode for one in producer_plans("all", 4)] == [*3 * [Mode.IDEMPOTENT], Mode.ACKS_ALL]
    assert {(one.mode, one.acks) for one in producer_plans("1", 4)} == {(Mode.ACKS_1, 1)}
    assert {(one.mode, one.acks) for one in producer_plans("0", 2)} == {(Mode.ACKS_0, 0)}
    assert len({one.name for one in producer_plans("all", 4)}) == 4


# --- disks -------------------------------------------------------------------------------


def log_of(directory: Path, *segments: bytes) -> Path:
    directory.mkdir()
    offset = 0
    for segment in segments:
        (directory / f"{offset:020}.log").write_bytes(segment)
        (directory / f"{offset:020}.index").write_bytes(b"")
        offset += len(segment)
    return directory


def test_a_torn_tail_is_shorter(tmp_path: Path) -> None:
    log = log_of(tmp_path / "t-0", b"a" * 100, b"b" * 50)
    assert "00000000000000000100.log" in harm([log], "torn tail", random.Random(1))
    assert (log / "00000000000000000000.log").read_bytes() == b"a" * 100
    left = (log / "00000000000000000100.log").read_bytes()
    assert len(left) < 50
    assert left == b"b" * len(left)


def test_a_flipped_byte_differs_in_one_bit(tmp_path: Path) -> None:
    log = log_of(tmp_path / "t-0", b"a" * 100)
    harm([log], "flipped byte", random.Random(1))
    after = (log / "00000000000000000000.log").read_bytes()
    assert len(after) == 100
    (changed,) = [byte for byte in after if byte != ord("a")]
    assert (changed ^ ord("a")).bit_count() == 1


def test_an_index_is_gone(tmp_path: Path) -> None:
    log = log_of(tmp_path / "t-0", b"a" * 100)
    harm([log], "index deleted", random.Random(1))
    assert list(log.glob("*.index")) == []


def test_nothing_to_harm_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoEffect):
        harm([log_of(tmp_path / "t-0", b"")], "torn tail", random.Random(1))


# --- replicas ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ([b"abcdef"], [b"abcdef"], None),
        ([b"abc", b"def"], [b"ab", b"cd", b"ef"], None),  # Rolled elsewhere, the same bytes.
        ([], [], None),
        ([b"abc"], [b"abd"], 2),
        ([b"abc"], [b"abcd"], 3),
        ([b"abc", b"d"], [b"abc"], 3),
        ([b"abc", b"def"], [b"abcd", b"xf"], 4),
        ([], [b"a"], 0),
    ],
)
def test_replicas_are_compared_byte_by_byte(
    tmp_path: Path, one: list[bytes], other: list[bytes], difference: int | None
) -> None:
    assert first_difference(log_of(tmp_path / "1", *one), log_of(tmp_path / "2", *other)) == difference


# --- journals ----------------------------------------------------------------------------


def event(number: int, broker: int, type: str, partition: int | None = None, **facts: object) -> Event:
    topic = "t" if partition is not None else None
    return Event(
        EventId(f"{broker}-1-{number}"), number, BrokerId(broker), type, None, topic, partition, facts
    )


def test_two_leaders_in_one_epoch_are_found() -> None:
    fine = [
        event(1, 1, "BecameLeader", 0, leader_epoch=1),
        event(2, 1, "BecameLeader", 0, leader_epoch=1),  # The same one again: a confirmation.
        event(3, 2, "BecameLeader", 0, leader_epoch=2),
        event(4, 2, "BecameLeader", 1, leader_epoch=1),
    ]
    assert two_rulers(History(fine), "t") == []
    ((partition, text),) = two_rulers(History([*fine, event(5, 3, "BecameLeader", 0, leader_epoch=2)]), "t")
    assert partition == TopicPartition("t", 0)
    assert "brokers 2 and 3" in text


def test_two_controllers_in_one_epoch_are_found() -> None:
    first = event(1, 1, "ControllerElected", controller_epoch=4)
    assert two_rulers(History([first, event(2, 2, "ControllerElected", controller_epoch=5)]), "t") == []
    assert len(two_rulers(History([first, event(2, 2, "ControllerElected", controller_epoch=4)]), "t")) == 1


# --- links -------------------------------------------------------------------------------


REQUEST = b"POST /v1/fetch HTTP/1.1\r\nHost: x\r\nX-Client-Id: %b\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("client_id", "caller"),
    [(b"broker-2", "2"), (b"broker-13-fetcher-0", "13"), (b"controller-3", "3"), (b"torture-producer-1", "")],
)
def test_callers_are_known_by_their_client_id(client_id: bytes, caller: str) -> None:
    assert BrokerProxy(Address("127.0.0.1", 1)).identify(REQUEST % client_id) == caller


def test_a_client_id_in_a_body_says_nothing() -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n\r\nX-Client-Id: broker-2\r\n"
    assert BrokerProxy(Address("127.0.0.1", 1)).identify(request) == ""


async def test_one_callers_line_is_cut_and_the_others_go_on() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, BrokerProxy(Address(host, port)) as proxy:

        async def call(client_id: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(*proxy.address)
            writer.write(REQUEST % client_id)
            assert await reader.readexactly(len(REQUEST % client_id)) == REQUEST % client_id
            return reader, writer

        (cut_reader, cut_writer), (reader, writer) = await call(b"broker-2"), await call(b"broker-3")
        cut = Cut([proxy.line("2")], [])
        cut.apply("nothing goes out")
        assert cut.met == 0
        for one in (cut_writer, writer):
            one.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        while not cut.met:
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await cut_reader.readexactly(5)
        cut.heal()
        assert await cut_reader.readexactly(5) == b"hello"
        cut.apply("reset")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await cut_reader.readexactly(5)
        writer.write(b"still")
        assert await reader.readexactly(5) == b"still"
        for one in (cut_writer, writer):
            one.close()
