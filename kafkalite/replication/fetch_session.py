"""Fetch sessions (KIP-227): say once what is to be fetched, and from then on only what changed.

Both sides remember what the other one knows. A *full* fetch (session epoch 0) names every
partition and asks for a session; an *incremental* one names the partitions whose request has
changed, those to be added, and those to be forgotten, and its answer leaves out the partitions
about which there is nothing new. Each incremental fetch carries the next epoch of its session, so
that no two of them can be taken for one another; whoever gets out of step is told so and fetches
in full again. Nothing but words on the wire is saved: a leader takes the fetch as a report about
*every* partition of the session, named or not.

No IO and no clock: times are milliseconds of the monotonic clock, handed in.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from kafkalite.common import BrokerId, TopicPartition, Uuid
from kafkalite.protocol.errors import (
    ErrorCode,
    FetchSessionIdNotFoundError,
    InvalidFetchSessionEpochError,
)
from kafkalite.protocol.fetch import (
    FetchForgottenTopic,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchResponsePartition,
    FetchResponseTopic,
    FetchTopic,
)

NO_SESSION: Final = 0
FULL: Final = 0
"""The session epoch of a full fetch that asks for a session."""
SESSIONLESS: Final = -1
"""The session epoch of a full fetch that wants none; one that is named is closed."""
MIN_EVICTION_MS: Final = 120_000
"""Kafka's `min.incremental.fetch.session.eviction.ms`: how long a session is safe, since its last
use from anybody, and since it was made from those that rank higher."""
_EPOCH_MAX: Final = 2**31 - 1


def next_epoch(epoch: int) -> int:
    """The epoch of the fetch that follows ``epoch``: wraps around to 1."""
    return 1 if epoch >= _EPOCH_MAX else epoch + 1


class PartitionToFetch(NamedTuple):
    """One partition of a fetch: named in it, or known from its session."""

    topic_partition: TopicPartition
    topic_id: Uuid
    part: FetchPartition


# --- The leader's side -----------------------------------------------------------------------


class Told(NamedTuple):
    """What the asker was last told about a partition besides records."""

    high_watermark: int
    last_stable_offset: int
    log_start_offset: int


class FetchSession:
    """What one asker fetches, as of its latest request."""

    def __init__(self, session_id: int, replica_id: BrokerId, now_ms: int) -> None:
        self.id = session_id
        self.replica_id = replica_id
        """Whose it is: the follower's broker id, -1 for a consumer's."""
        self.epoch = next_epoch(FULL)
        """That of the request that comes next."""
        self.created_ms = now_ms
        self.used_ms = now_ms
        self.partitions: dict[TopicPartition, PartitionToFetch] = {}
        """In the order in which they are read: those that had records go to the end, so that a
        limit on the answer's size does not always favour the same ones."""
        self._told: dict[TopicPartition, Told] = {}

    def name(self, topics: Iterable[FetchTopic]) -> None:
        """Add or replace the partitions that a request names: each gets an answer, news or not."""
        for topic in topics:
            for part in topic.partitions:
                key = TopicPartition(topic.topic, part.partition)
                self._told.pop(key, None)
                self.partitions[key] = PartitionToFetch(key, topic.topic_id, part)

    def forget(self, topics: Iterable[FetchForgottenTopic]) -> None:
        """Drop the partitions that a request no longer wants."""
        for topic in topics:
            for partition in topic.partitions:
                key = TopicPartition(topic.topic, partition)
                self.partitions.pop(key, None)
                self._told.pop(key, None)

    def knows(self, key: TopicPartition, told: Told) -> bool:
        """Tell whether the asker knows ``told`` of this partition, and expects no answer about it."""
        return self._told.get(key) == told or key not in self.partitions

    def note_answer(self, key: TopicPartition, answer: FetchResponsePartition) -> None:
        """Remember what the asker will know from ``answer``."""
        if answer.error_code != ErrorCode.NONE or answer.diverging_epoch.epoch >= 0:
            self._told.pop(key, None)  # Whatever comes after it is news.
        elif key in self.partitions:  # Not forgotten by a later request while this one waited.
            self._told[key] = Told(answer.high_watermark, answer.last_stable_offset, answer.log_start_offset)
            if answer.records:
                self.partitions[key] = self.partitions.pop(key)


class Fetching(NamedTuple):
    """A fetch in the light of its session."""

    partitions: list[PartitionToFetch]
    session: FetchSession | None
    """The session it belongs to, or that it has opened."""
    is_full: bool
    """Whether the answer says something about every partition."""

    def is_told(self, wanted: PartitionToFetch, told: Told) -> bool:
        """Tell whether an answer without records, which would say ``told``, can be left out."""
        session = self.session
        if session is None or self.is_full:
            return False
        return session.knows(wanted.topic_partition, told)

    def respond(self, answers: Iterable[tuple[PartitionToFetch, FetchResponsePartition]]) -> FetchResponse:
        """Put the answers together, in the order of the request."""
        session = self.session
        topics: list[FetchResponseTopic] = []
        for wanted, answer in answers:
            key, topic_id, _ = wanted
            if session is not None:
                session.note_answer(key, answer)
            # Neighbours of one topic share its entry.
            if topics and topics[-1].topic == key.topic and topics[-1].topic_id == topic_id:
                topics[-1].partitions.append(answer)
            else:
                topics.append(FetchResponseTopic(topic=key.topic, topic_id=topic_id, partitions=[answer]))
        return FetchResponse(session_id=NO_SESSION if session is None else session.id, responses=topics)


class FetchSessions:
    """The sessions of all askers of one broker.

    ``slots`` bounds them (`max.incremental.fetch.session.cache.slots`). Where all are taken, a new
    session takes the place of one that has not been used for :data:`MIN_EVICTION_MS`, or of one that
    has had its time and ranks lower (followers before consumers, many partitions before few);
    where there is none of these, the fetch is served without a session.
    """

    def __init__(self, slots: int, chance: random.Random) -> None:
        self._slots = slots
        self._chance = chance
        self._sessions: dict[int, FetchSession] = {}
        """The least recently used one first."""

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, request: FetchRequest, *, now_ms: int) -> Fetching:
        """Find out what ``request`` fetches.

        Raises FetchSessionIdNotFoundError and InvalidFetchSessionEpochError: the request has had
        no effect then.
        """
        replica_id = BrokerId(request.replica_state.replica_id)
        if request.session_epoch in (FULL, SESSIONLESS):
            named = self._sessions.get(request.session_id)
            if named is not None and named.replica_id == replica_id:
                del self._sessions[named.id]  # It is given up, or replaced by the new one.
            wanted = [
                PartitionToFetch(TopicPartition(topic.topic, part.partition), topic.topic_id, part)
                for topic in request.topics
                for part in topic.partitions
            ]
            session = None
            if request.session_epoch == FULL and wanted:
                session = self._open(replica_id, len(wanted), now_ms)
            if session is not None:
                session.name(request.topics)
            return Fetching(wanted, session, is_full=True)
        session = self._sessions.get(request.session_id)
        if session is None or session.replica_id != replica_id:
            raise FetchSessionIdNotFoundError(f"there is no fetch session {request.session_id} here")
        if session.epoch != request.session_epoch:
            raise InvalidFetchSessionEpochError(
                f"fetch session {session.id} is at epoch {session.epoch}, not {request.session_epoch}"
            )
        session.epoch = next_epoch(session.epoch)
        session.used_ms = now_ms
        del self._sessions[session.id]
        self._sessions[session.id] = session
        session.forget(request.forgotten_topics_data)
        session.name(request.topics)
        return Fetching(list(session.partitions.values()), session, is_full=False)

    def _open(self, replica_id: BrokerId, size: int, now_ms: int) -> FetchSession | None:
        if len(self._sessions) >= self._slots and not self._make_room(replica_id, size, now_ms):
            return None
        session_id = NO_SESSION
        while session_id == NO_SESSION or session_id in self._sessions:
            # By chance, so that a session of this broker's life before is not taken for one of now.
            session_id = self._chance.randrange(1, 2**31)
        session = self._sessions[session_id] = FetchSession(session_id, replica_id, now_ms)
        return session

    def _make_room(self, replica_id: BrokerId, size: int, now_ms: int) -> bool:
        oldest = next(iter(self._sessions.values()), None)
        if oldest is None:
            return False
        if now_ms - oldest.used_ms > MIN_EVICTION_MS:
            del self._sessions[oldest.id]
            return True
        candidates = [s for s in self._sessions.values() if now_ms - s.created_ms > MIN_EVICTION_MS]
        lowest = min(candidates, key=_rank, default=None)
        if lowest is None or _rank(lowest) >= (replica_id >= 0, size):
            return False
        del self._sessions[lowest.id]
        return True


def _rank(session: FetchSession) -> tuple[bool, int]:
    return session.replica_id >= 0, len(session.partitions)


# --- The asker's side ------------------------------------------------------------------------


class FetchSessionHandler:
    """What a leader knows of this asker's fetches, and so what the next one must say."""

    def __init__(self) -> None:
        self._id = NO_SESSION
        self._epoch = FULL
        """Of the next fetch."""
        self._known: Mapping[TopicPartition, PartitionToFetch] = {}
        """What the leader will have after the fetch that is under way."""

    def next_fetch(
        self, wanted: Mapping[TopicPartition, PartitionToFetch]
    ) -> tuple[int, int, list[FetchTopic], list[FetchForgottenTopic]]:
        """The session id, its epoch, the partitions to name and those to forget.

        ``wanted`` is everything to be fetched. Call :meth:`answered` or :meth:`failed` before the
        next one.
        """
        known, self._known = self._known, wanted
        if self._epoch == FULL:
            known = {}
        named: dict[tuple[str, Uuid], list[FetchPartition]] = {}
        for key, one in wanted.items():
            if known.get(key) != one:
                named.setdefault((key.topic, one.topic_id), []).append(one.part)
        forgotten: dict[tuple[str, Uuid], list[int]] = {}
        for key, one in known.items():
            if key not in wanted:
                forgotten.setdefault((key.topic, one.topic_id), []).append(key.partition)
        return (
            self._id,
            self._epoch,
            [FetchTopic(topic=name, topic_id=id, partitions=parts) for (name, id), parts in named.items()],
            [
                FetchForgottenTopic(topic=name, topic_id=id, partitions=partitions)
                for (name, id), partitions in forgotten.items()
            ],
        )

    def answered(self, response: FetchResponse) -> None:
        """Take the answer to the latest fetch: the session goes on, is new, or is over."""
        if response.error_code != ErrorCode.NONE:
            if response.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND:
                self._id = NO_SESSION  # Else the next full fetch closes what is left of it.
            self._epoch = FULL
        elif response.session_id == NO_SESSION:
            self._id, self._epoch = NO_SESSION, FULL
        elif response.session_id == self._id:
            self._epoch = next_epoch(self._epoch)
        else:
            self._id, self._epoch = response.session_id, next_epoch(FULL)

    def failed(self) -> None:
        """No answer came: whether the leader has taken the fetch is unknown, so the next is full."""
        self._epoch = FULL
