"""The records of `__consumer_offsets`: what each means is Kafka's, how it is written is ours.

Keys and values are MessagePack arrays whose first element is a version, with Kafka's numbers. A
value of None is a tombstone: the key is gone.

==================  =====================================  ==========================================
record              key                                    value
==================  =====================================  ==========================================
committed offset    `[1, group, topic, partition]`         `[3, offset, leader_epoch, metadata,
                                                           commit_timestamp_ms]`
group               `[2, group]`                           `[3, protocol_type, generation_id, protocol,
                                                           leader, state_timestamp_ms, [member, …]]`
==================  =====================================  ==========================================

A member is `[member_id, group_instance_id, client_id, client_host, rebalance_timeout_ms,
session_timeout_ms, subscription, assignment]`. A reader ignores keys with a version it does not
know (newer kinds of groups) and further elements at the end of what it knows. What else cannot be
read is left out and told in the journal: one bad record must not take a partition's groups away.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from kafkalite.edge import Buffer

OFFSET_KEY_VERSION: Final = 1
GROUP_KEY_VERSION: Final = 2
VALUE_VERSION: Final = 3

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder()


class MalformedRecord(Exception):
    """A record of an internal topic that cannot be read."""


class OffsetKey(msgspec.Struct, frozen=True):
    """One group's place in one partition."""

    group_id: str
    topic: str
    partition: int


class GroupKey(msgspec.Struct, frozen=True):
    """One group's last completed generation."""

    group_id: str


Key: TypeAlias = OffsetKey | GroupKey


class OffsetValue(msgspec.Struct, frozen=True):
    """How far a group has come in a partition."""

    offset: int
    """The next offset to read."""
    leader_epoch: int
    """The leader epoch of the last record read; -1 if not known."""
    metadata: str
    commit_timestamp_ms: int


class MemberValue(msgspec.Struct, frozen=True):
    """One member as of a stored generation."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    """What it gave with the chosen protocol."""
    assignment: bytes


class GroupValue(msgspec.Struct, frozen=True):
    """A generation whose assignment is known, or one without members."""

    protocol_type: str
    generation_id: int
    protocol: str | None
    leader: str | None
    state_timestamp_ms: int
    """When the group came into the state that this is, in wall time."""
    members: tuple[MemberValue, ...]


Value: TypeAlias = OffsetValue | GroupValue


class Record(msgspec.Struct, frozen=True):
    """One record to append, or read back."""

    key: Key
    value: Value | None
    """None: a tombstone."""

    def encode(self) -> tuple[bytes, bytes | None]:
        """Write key and value."""
        match self.key:
            case OffsetKey(group_id, topic, partition):
                key = _ENCODER.encode((OFFSET_KEY_VERSION, group_id, topic, partition))
            case GroupKey(group_id):
                key = _ENCODER.encode((GROUP_KEY_VERSION, group_id))
        match self.value:
            case OffsetValue(offset, leader_epoch, metadata, timestamp):
                return key, _ENCODER.encode((VALUE_VERSION, offset, leader_epoch, metadata, timestamp))
            case GroupValue() as group:
                return key, _ENCODER.encode(
                    (
                        VALUE_VERSION,
                        group.protocol_type,
                        group.generation_id,
                        group.protocol,
                        group.leader,
                        group.state_timestamp_ms,
                        [_member(member) for member in group.members],
                    )
                )
            case None:
                return key, None

    @staticmethod
    def decode(key: Buffer, value: Buffer | None) -> Record | None:
        """Read a record; None for a kind that this version does not know. Raises MalformedRecord."""
        try:
            match _DECODER.decode(key):
                case [1, str(group_id), str(topic), int(partition), *_]:
                    return Record(
                        OffsetKey(group_id, topic, partition), None if value is None else _offset_value(value)
                    )
                case [2, str(group_id), *_]:
                    return Record(GroupKey(group_id), None if value is None else _group_value(value))
                case [int(version), *_] if version not in (OFFSET_KEY_VERSION, GROUP_KEY_VERSION):
                    return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedRecord(f"key {bytes(key)[:80]!r}: {error}") from None
        raise MalformedRecord(f"key {bytes(key)[:80]!r} is of no known form")


def _member(member: MemberValue) -> tuple[Any, ...]:
    return (
        member.member_id,
        member.group_instance_id,
        member.client_id,
        member.client_host,
        member.rebalance_timeout_ms,
        member.session_timeout_ms,
        member.subscription,
        member.assignment,
    )


def _offset_value(value: Buffer) -> OffsetValue:
    match _DECODER.decode(value):
        case [3, int(offset), int(leader_epoch), str(metadata), int(timestamp), *_]:
            return OffsetValue(offset, leader_epoch, metadata, timestamp)
        case other:
            raise MalformedRecord(f"an offset's value is of no known form: {str(other)[:80]}")


def _group_value(value: Buffer) -> GroupValue:
    match _DECODER.decode(value):
        case [
            3,
            str(protocol_type),
            int(generation_id),
            str() | None as protocol,
            str() | None as leader,
            int(timestamp),
            list(members),
            *_,
        ]:
            return GroupValue(
                protocol_type, generation_id, protocol, leader, timestamp, tuple(map(_member_value, members))
            )
        case other:
            raise MalformedRecord(f"a group's value is of no known form: {str(other)[:80]}")


def _member_value(member: object) -> MemberValue:
    match member:
        case [
            str(member_id),
            str() | None as instance_id,
            str(client_id),
            str(client_host),
            int(rebalance_timeout_ms),
            int(session_timeout_ms),
            bytes(subscription),
            bytes(assignment),
            *_,
        ]:
            return MemberValue(
                member_id,
                instance_id,
                client_id,
                client_host,
                rebalance_timeout_ms,
                session_timeout_ms,
                subscription,
                assignment,
            )
        case other:
            raise MalformedRecord(f"a member is of no known form: {str(other)[:80]}")
