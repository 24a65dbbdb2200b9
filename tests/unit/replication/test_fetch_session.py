"""Fetch sessions: both sides stay in step, or notice that they are not."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafkalite.common import ZERO_UUID, TopicPartition
from kafkalite.protocol.errors import (
    BrokerError,
    FetchSessionIdNotFoundError,
    InvalidFetchSessionEpochError,
)
from kafkalite.protocol.fetch import (
    FetchPartition,
    FetchReplicaState,
    FetchRequest,
    FetchResponse,
    FetchResponseDivergingEpoch,
    FetchResponsePartition,
)
from kafkalite.replication.fetch_session import (
    MIN_EVICTION_MS,
    Fetching,
    FetchSessionHandler,
    FetchSessions,
    PartitionToFetch,
    Told,
    next_epoch,
)

Wanted = Mapping[TopicPartition, PartitionToFetch]


def wanting(**offsets: int) -> dict[TopicPartition, PartitionToFetch]:
    """Partitions named like `a0=5`: topic a, partition 0, from offset 5 on."""
    wanted = {}
    for name, offset in offsets.items():
        part = FetchPartition(partition=int(name[1:]), fetch_offset=offset, partition_max_bytes=100)
        key = TopicPartition(name[0], int(name[1:]))
        wanted[key] = PartitionToFetch(key, ZERO_UUID, part)
    return wanted


def request_for(handler: FetchSessionHandler, wanted: Wanted, *, replica_id: int = 2) -> FetchRequest:
    session_id, epoch, topics, forgotten = handler.next_fetch(wanted)
    return FetchRequest(
        replica_state=FetchReplicaState(replica_id=replica_id),
        max_wait_ms=0,
        min_bytes=0,
        session_id=session_id,
        session_epoch=epoch,
        topics=topics,
        forgotten_topics_data=forgotten,
    )


def answer(high_watermark: int = 0, *, records: bytes = b"", **fields: object) -> FetchResponsePartition:
    values = {"partition_index": 0, "error_code": 0, "high_watermark": high_watermark, **fields}
    return FetchResponsePartition(records=memoryview(records), **values)  # type: ignore[arg-type]


def respond(fetching: Fetching, answers: Mapping[str, FetchResponsePartition]) -> FetchResponse:
    """Answer every partition: as ``answers`` says by name, else with nothing at all."""
    given = []
    for one in fetching.partitions:
        said = answers.get("{}{}".format(*one.topic_partition), answer())
        told = Told(said.high_watermark, said.last_stable_offset, said.log_start_offset)
        is_simple = said.error_code == 0 and said.diverging_epoch.epoch < 0 and not said.records
        if is_simple and fetching.is_told(one, told):
            continue
        fields = {name: getattr(said, name) for name in said.__struct_fields__}
        given.append((one, FetchResponsePartition(**{**fields, "partition_index": one.part.partition})))
    return fetching.respond(given)


def named(response: FetchResponse) -> list[str]:
    return [
        f"{topic.topic}{part.partition_index}" for topic in response.responses for part in topic.partitions
    ]


class Pair:
    """An asker and its leader."""

    def __init__(self, slots: int = 10) -> None:
        self.sessions = FetchSessions(slots, random.Random(1))
        self.handler = FetchSessionHandler()

    def fetch(self, wanted: Wanted, **answers: FetchResponsePartition) -> list[str]:
        """One fetch and its answer; the partitions that the answer names."""
        request = request_for(self.handler, wanted)
        fetching = self.sessions.begin(request, now_ms=0)
        assert {p.topic_partition: p for p in fetching.partitions} == wanted
        response = respond(fetching, answers)
        self.handler.answered(response)
        return named(response)


def test_only_news_is_told() -> None:
    pair = Pair()
    wanted = wanting(a0=0, a1=0, b0=0)
    assert pair.fetch(wanted) == ["a0", "a1", "b0"]
    assert pair.fetch(wanted) == []
    assert pair.fetch(wanted, a1=answer(5)) == ["a1"]
    assert pair.fetch(wanted, a1=answer(5)) == []
    assert pair.fetch(wanted, a1=answer(5, records=b"x")) == ["a1"]
    assert pair.fetch(wanted, a1=answer(5, log_start_offset=2)) == ["a1"]
    assert pair.fetch(wanted, a1=answer(5, log_start_offset=2)) == []
    # An error is told every time, and so is what comes after it.
    for _ in range(2):
        assert pair.fetch(wanted, b0=answer(-1, error_code=6), a1=answer(5, log_start_offset=2)) == ["b0"]
    assert pair.fetch(wanted, a1=answer(5, log_start_offset=2)) == ["b0"]
    diverging = FetchResponseDivergingEpoch(epoch=0, end_offset=0)
    assert pair.fetch(wanted, a0=answer(diverging_epoch=diverging), a1=answer(5, log_start_offset=2)) == [
        "a0"
    ]


def test_a_partition_that_is_named_gets_an_answer_news_or_not() -> None:
    """Its asker may have dropped the answer before, with the high watermark in it."""
    pair = Pair()
    pair.fetch(wanting(a0=0, a1=0), a0=answer(7))
    assert pair.fetch(wanting(a0=3, a1=0), a0=answer(7)) == ["a0"]


def test_partitions_are_named_when_they_change_and_forgotten_when_they_go() -> None:
    handler, sessions = FetchSessionHandler(), FetchSessions(1, random.Random(1))

    def ask(wanted: Wanted) -> FetchRequest:
        request = request_for(handler, wanted)
        handler.answered(respond(sessions.begin(request, now_ms=0), {}))
        return request

    assert [t.topic for t in ask(wanting(a0=0, b0=0)).topics] == ["a", "b"]
    assert ask(wanting(a0=0, b0=0)).topics == []
    changed = ask(wanting(a0=1, b0=0))
    assert [(t.topic, t.partitions[0].fetch_offset) for t in changed.topics] == [("a", 1)]
    gone = ask(wanting(a0=1))
    assert gone.topics == []
    assert [(t.topic, t.partitions) for t in gone.forgotten_topics_data] == [("b", [0])]
    assert [t.topic for t in ask(wanting(a0=1, b0=0)).topics] == ["b"]


def test_who_is_out_of_step_is_told_and_nothing_changes() -> None:
    sessions, handler = FetchSessions(10, random.Random(1)), FetchSessionHandler()
    request = request_for(handler, wanting(a0=0))
    response = respond(sessions.begin(request, now_ms=0), {})
    handler.answered(response)
    second = request_for(handler, wanting(a0=1))
    sessions.begin(second, now_ms=0)
    with pytest.raises(InvalidFetchSessionEpochError):
        sessions.begin(second, now_ms=0)  # The same one again: its answer was lost, or it is a ghost.
    foreign = FetchRequest(
        replica_state=FetchReplicaState(replica_id=3),
        max_wait_ms=0,
        min_bytes=0,
        session_id=response.session_id,
        session_epoch=2,
        topics=[],
    )
    with pytest.raises(FetchSessionIdNotFoundError):
        sessions.begin(foreign, now_ms=0)
    handler.answered(respond(Fetching([], None, is_full=False), {}))
    assert request_for(handler, wanting(a0=1)).session_epoch == 0


def test_a_full_fetch_closes_the_session_that_it_names() -> None:
    pair = Pair()
    pair.fetch(wanting(a0=0))
    pair.handler.failed()
    pair.fetch(wanting(a0=0))
    assert len(pair.sessions) == 1
    closing = request_for(pair.handler, wanting(a0=0))
    closing = FetchRequest(
        replica_state=closing.replica_state,
        max_wait_ms=0,
        min_bytes=0,
        session_id=closing.session_id,
        session_epoch=-1,
        topics=[],
    )
    assert respond(pair.sessions.begin(closing, now_ms=0), {}).session_id == 0
    assert len(pair.sessions) == 0


def test_epochs_wrap_around_to_one() -> None:
    assert next_epoch(0) == 1
    assert next_epoch(2**31 - 1) == 1


def test_partitions_with_records_go_to_the_end() -> None:
    pair = Pair()
    wanted = wanting(a0=0, a1=0, a2=0)
    pair.fetch(wanted, a0=answer(1, records=b"x"))
    fetching = pair.sessions.begin(request_for(pair.handler, wanted), now_ms=0)
    assert [one.part.partition for one in fetching.partitions] == [1, 2, 0]


# ---- who may stay


def open_session(
    sessions: FetchSessions, *, replica_id: int = -1, partitions: int = 1, now_ms: int = 0
) -> int:
    wanted = wanting(**{f"a{number}": 0 for number in range(partitions)})
    request = request_for(FetchSessionHandler(), wanted, replica_id=replica_id)
    return respond(sessions.begin(request, now_ms=now_ms), {}).session_id


def test_without_a_slot_a_fetch_is_served_without_a_session() -> None:
    sessions = FetchSessions(1, random.Random(1))
    assert open_session(sessions) != 0
    assert open_session(sessions, replica_id=2) == 0, "no session is so young that it may be pushed out"
    assert open_session(FetchSessions(0, random.Random(1))) == 0


@pytest.mark.parametrize(
    ("holder", "comer", "is_admitted"),
    [
        ((-1, 5), (2, 1), True),  # A follower before a consumer,
        ((2, 1), (-1, 50), False),
        ((-1, 5), (-1, 6), True),  # many partitions before few,
        ((-1, 5), (-1, 5), False),
        ((2, 5), (3, 6), True),
    ],
)
def test_whoever_has_had_its_time_makes_way_for_a_higher_rank(
    holder: tuple[int, int], comer: tuple[int, int], is_admitted: bool
) -> None:
    sessions = FetchSessions(1, random.Random(1))
    wanted = wanting(**{f"a{number}": 0 for number in range(holder[1])})
    handler = FetchSessionHandler()
    handler.answered(
        respond(sessions.begin(request_for(handler, wanted, replica_id=holder[0]), now_ms=0), {})
    )
    later = MIN_EVICTION_MS + 1
    sessions.begin(request_for(handler, wanted, replica_id=holder[0]), now_ms=later)  # It is in use.
    admitted = open_session(sessions, replica_id=comer[0], partitions=comer[1], now_ms=later)
    assert bool(admitted) is is_admitted
    assert len(sessions) == 1


def test_a_session_that_nobody_uses_makes_way_for_anybody() -> None:
    sessions = FetchSessions(2, random.Random(1))
    old, new = open_session(sessions, replica_id=2, partitions=9), open_session(sessions, now_ms=50)
    assert open_session(sessions, now_ms=MIN_EVICTION_MS) == 0
    assert open_session(sessions, now_ms=MIN_EVICTION_MS + 1) not in (0, old, new)
    assert old not in sessions._sessions
    assert new in sessions._sessions


# ---- both sides, whatever gets lost

events = st.lists(
    st.tuples(
        st.sampled_from(["answered", "answer lost", "request lost", "leader restarts", "ghost"]),
        st.dictionaries(st.sampled_from(["a0", "a1", "b0", "b1"]), st.integers(0, 3), min_size=1),
    ),
    max_size=30,
)


@given(events=events, seed=st.integers(0, 1000))
def test_the_leader_takes_a_fetch_for_exactly_what_its_asker_wants(
    events: list[tuple[str, dict[str, int]]], seed: int
) -> None:
    """Requests and answers may be lost, a leader may restart, an old request may arrive late."""
    chance = random.Random(seed)
    sessions, handler = FetchSessions(3, chance), FetchSessionHandler()
    sent: list[FetchRequest] = []
    for kind, offsets in events:
        if kind == "leader restarts":
            sessions = FetchSessions(3, chance)
        if kind == "ghost" and sent:
            # Whatever it does, the next fetch of the asker must not be taken for another one.
            try:
                sessions.begin(chance.choice(sent), now_ms=0)
            except BrokerError:
                pass
        wanted = wanting(**offsets)
        request = request_for(handler, wanted)
        sent.append(request)
        if kind == "request lost":
            handler.failed()
            continue
        try:
            fetching = sessions.begin(request, now_ms=0)
        except (FetchSessionIdNotFoundError, InvalidFetchSessionEpochError) as error:
            handler.answered(FetchResponse(error_code=error.code, responses=[]))
            request = request_for(handler, wanted)  # In full, and that is never refused.
            fetching = sessions.begin(request, now_ms=0)
        assert {p.topic_partition: p for p in fetching.partitions} == wanted
        response = respond(fetching, {})
        if kind == "answer lost":
            handler.failed()
        else:
            handler.answered(response)
        assert len(sessions) <= 3


def test_ids_are_drawn_until_one_is_free() -> None:
    class Repeating(random.Random):
        def randrange(self, *args: object, **kwargs: object) -> int:
            drawn = [7, 7, 8]
            self.calls = getattr(self, "calls", 0) + 1
            return drawn[self.calls - 1]

    sessions = FetchSessions(2, Repeating())
    assert [open_session(sessions), open_session(sessions)] == [7, 8]
