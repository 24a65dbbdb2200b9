"""A group member's conversation with its coordinator, overheard and noted in the history.

What a consumer does in its group it does by itself, beside its caller: it joins again, commits
automatically, tries a commit once more under another generation. So the :class:`Witness` stands where that
can be seen, between the consumer and the network, as its transport. It changes nothing. An answer that does
not come is not noted: then the outcome is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from kafkalite.checker.history import (
    Assigned,
    CommitAccepted,
    CommitRefused,
    CommitSent,
    CommittedAsked,
    CommittedRead,
    Disowned,
    HistoryEvent,
    Joined,
    Revoked,
)
from kafkalite.client import RebalanceListener, TopicPartition
from kafkalite.common import Address
from kafkalite.edge import Buffer, HttpReply, Transport
from kafkalite.protocol import codec
from kafkalite.protocol.consumer_protocol import Assignment
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.join_group import JoinGroupRequest, JoinGroupResponse
from kafkalite.protocol.offset_commit import OffsetCommitRequest, OffsetCommitResponse
from kafkalite.protocol.offset_fetch import OffsetFetchRequest, OffsetFetchResponse
from kafkalite.protocol.sync_group import SyncGroupRequest, SyncGroupResponse

_E = ErrorCode
CERTAIN: Final = frozenset(
    {
        _E.ILLEGAL_GENERATION,
        _E.UNKNOWN_MEMBER_ID,
        _E.REBALANCE_IN_PROGRESS,
        _E.FENCED_INSTANCE_ID,
        _E.COORDINATOR_LOAD_IN_PROGRESS,
        _E.UNKNOWN_TOPIC_OR_PARTITION,
        _E.OFFSET_METADATA_TOO_LARGE,
        _E.INVALID_GROUP_ID,
    }
)
"""Errors that refuse a commit before it is written; after the others it may still take effect."""

Note = Callable[[HistoryEvent], None]


class Witness:
    """The transport of one consumer, for one life of it (:class:`kafkalite.edge.Transport`)."""

    def __init__(
        self,
        transport: Transport,
        *,
        consumer: str,
        note: Note,
        at: Callable[[], float],
        numbers: Iterator[int],
    ) -> None:
        """``numbers`` gives each commit and each question a number of its own in the whole history."""
        self._transport = transport
        self._consumer = consumer
        self._note = note
        self._at = at
        self._numbers = numbers

    async def ask(
        self,
        address: Address,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: Sequence[Buffer] = (),
        lane: str,
        timeout_ms: int,
    ) -> HttpReply:
        """Pass the request on; see :class:`kafkalite.edge.Transport`."""
        heard = self._listen(target, body)
        reply = await self._transport.ask(
            address, method, target, headers=headers, body=body, lane=lane, timeout_ms=timeout_ms
        )
        if heard is not None and reply.status == 200:
            heard(b"".join(bytes(piece) for piece in reply.body))
        return reply

    async def disconnect(self) -> None:
        """Drop all connections."""
        await self._transport.disconnect()

    async def close(self) -> None:
        """Drop all connections, for good."""
        await self._transport.close()

    def _listen(self, target: str, body: Sequence[Buffer]) -> Callable[[bytes], None] | None:
        """Note what is asked; returns what takes the answer, where that is of interest."""
        match target.removeprefix("/v1/"):
            case "join_group":
                join = codec.decode(JoinGroupRequest, _whole(body))
                return lambda answer: self._joined(join, codec.decode(JoinGroupResponse, answer))
            case "sync_group":
                sync = codec.decode(SyncGroupRequest, _whole(body))
                return lambda answer: self._synced(sync, codec.decode(SyncGroupResponse, answer))
            case "offset_commit":
                commit = codec.decode(OffsetCommitRequest, _whole(body))
                number = self._commits(commit)
                return lambda answer: self._committed(number, codec.decode(OffsetCommitResponse, answer))
            case "offset_fetch":
                fetch = codec.decode(OffsetFetchRequest, _whole(body))
                return self._asks(fetch)
            case _:
                return None

    # --- membership ----------------------------------------------------------------------

    def _joined(self, request: JoinGroupRequest, answer: JoinGroupResponse) -> None:
        if answer.error_code == ErrorCode.NONE:
            self._note(
                Joined(
                    self._consumer,
                    request.group_id,
                    answer.member_id,
                    answer.generation_id,
                    request.group_instance_id,
                    self._at(),
                )
            )

    def _synced(self, request: SyncGroupRequest, answer: SyncGroupResponse) -> None:
        if answer.error_code == ErrorCode.NONE:
            self._note(
                Assigned(
                    self._consumer,
                    request.group_id,
                    request.member_id,
                    request.generation_id,
                    names(Assignment.decode(answer.assignment).partitions),
                    request.group_instance_id,
                    self._at(),
                )
            )

    # --- offsets -------------------------------------------------------------------------

    def _commits(self, request: OffsetCommitRequest) -> int:
        number = next(self._numbers)
        offsets = [
            (topic.name, part.partition_index, part.committed_offset)
            for topic in request.topics
            for part in topic.partitions
        ]
        self._note(
            CommitSent(
                number,
                self._consumer,
                request.group_id,
                request.member_id,
                request.generation_id_or_member_epoch,
                offsets,
                self._at(),
            )
        )
        return number

    def _committed(self, number: int, answer: OffsetCommitResponse) -> None:
        by_code: dict[int, list[tuple[str, int]]] = {}
        for topic in answer.topics:
            for part in topic.partitions:
                by_code.setdefault(part.error_code, []).append((topic.name, part.partition_index))
        for code, partitions in by_code.items():
            if code == ErrorCode.NONE:
                self._note(CommitAccepted(number, partitions, self._at()))
            elif code in CERTAIN:
                self._note(CommitRefused(number, partitions, ErrorCode(code).name, self._at()))

    def _asks(self, request: OffsetFetchRequest) -> Callable[[bytes], None]:
        numbers = {}
        for group in request.groups:
            number = numbers[group.group_id] = next(self._numbers)
            partitions = [
                (topic.name, partition)
                for topic in group.topics or ()
                for partition in topic.partition_indexes
            ]
            self._note(CommittedAsked(number, group.group_id, partitions, self._at()))

        def heard(answer: bytes) -> None:
            for group in codec.decode(OffsetFetchResponse, answer).groups:
                offsets = [
                    (topic.name, part.partition_index, part.committed_offset)
                    for topic in group.topics
                    for part in topic.partitions
                    if part.error_code == ErrorCode.NONE
                ]
                if group.error_code == ErrorCode.NONE:
                    self._note(CommittedRead(numbers[group.group_id], offsets, self._at()))

        return heard

    def listener(self, group: str) -> RebalanceListener:
        """What notes when the consumer has given partitions up, or learned that they are gone."""
        return _GivesUp(self._consumer, group, self._note, self._at)


class _GivesUp(RebalanceListener):
    def __init__(self, consumer: str, group: str, note: Note, at: Callable[[], float]) -> None:
        self._consumer = consumer
        self._group = group
        self._note = note
        self._at = at

    def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        self._note(Revoked(self._consumer, self._group, names(sorted(revoked)), self._at()))

    def on_partitions_lost(self, lost: frozenset[TopicPartition]) -> None:
        self._note(Disowned(self._consumer, self._group, names(sorted(lost)), self._at()))


def names(partitions: Iterable[TopicPartition]) -> list[tuple[str, int]]:
    """Partitions as a history names them."""
    return [(topic, number) for topic, number in partitions]


def _whole(body: Sequence[Buffer]) -> bytes:
    return b"".join(bytes(piece) for piece in body)
