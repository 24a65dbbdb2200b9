"""Kafka's error codes, and one exception class for each of them.

A broker raises these classes and writes their code into an answer; a client reads the code and
raises the same class again, so what a caller may do about an error lives in one place: on the
class. ``retriable`` says that the same request may succeed later, ``refresh_metadata`` that what
the client believes about leaders and brokers is out of date. Codes, names and both flags are
Kafka's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple


class ErrorCode(IntEnum):
    """Kafka's numbers and names."""

    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    INVALID_FETCH_SIZE = 4
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER_OR_FOLLOWER = 6
    REQUEST_TIMED_OUT = 7
    BROKER_NOT_AVAILABLE = 8
    REPLICA_NOT_AVAILABLE = 9
    MESSAGE_TOO_LARGE = 10
    STALE_CONTROLLER_EPOCH = 11
    OFFSET_METADATA_TOO_LARGE = 12
    NETWORK_EXCEPTION = 13
    COORDINATOR_LOAD_IN_PROGRESS = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    INVALID_TOPIC_EXCEPTION = 17
    RECORD_LIST_TOO_LARGE = 18
    NOT_ENOUGH_REPLICAS = 19
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    INVALID_REQUIRED_ACKS = 21
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    INVALID_GROUP_ID = 24
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    INVALID_COMMIT_OFFSET_SIZE = 28
    TOPIC_AUTHORIZATION_FAILED = 29
    GROUP_AUTHORIZATION_FAILED = 30
    CLUSTER_AUTHORIZATION_FAILED = 31
    INVALID_TIMESTAMP = 32
    UNSUPPORTED_SASL_MECHANISM = 33
    ILLEGAL_SASL_STATE = 34
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    INVALID_REPLICA_ASSIGNMENT = 39
    INVALID_CONFIG = 40
    NOT_CONTROLLER = 41
    INVALID_REQUEST = 42
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
    POLICY_VIOLATION = 44
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    DUPLICATE_SEQUENCE_NUMBER = 46
    INVALID_PRODUCER_EPOCH = 47
    INVALID_TXN_STATE = 48
    INVALID_PRODUCER_ID_MAPPING = 49
    INVALID_TRANSACTION_TIMEOUT = 50
    CONCURRENT_TRANSACTIONS = 51
    TRANSACTION_COORDINATOR_FENCED = 52
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    SECURITY_DISABLED = 54
    OPERATION_NOT_ATTEMPTED = 55
    KAFKA_STORAGE_ERROR = 56
    LOG_DIR_NOT_FOUND = 57
    SASL_AUTHENTICATION_FAILED = 58
    UNKNOWN_PRODUCER_ID = 59
    REASSIGNMENT_IN_PROGRESS = 60
    DELEGATION_TOKEN_AUTH_DISABLED = 61
    DELEGATION_TOKEN_NOT_FOUND = 62
    DELEGATION_TOKEN_OWNER_MISMATCH = 63
    DELEGATION_TOKEN_REQUEST_NOT_ALLOWED = 64
    DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65
    DELEGATION_TOKEN_EXPIRED = 66
    INVALID_PRINCIPAL_TYPE = 67
    NON_EMPTY_GROUP = 68
    GROUP_ID_NOT_FOUND = 69
    FETCH_SESSION_ID_NOT_FOUND = 70
    INVALID_FETCH_SESSION_EPOCH = 71
    LISTENER_NOT_FOUND = 72
    TOPIC_DELETION_DISABLED = 73
    FENCED_LEADER_EPOCH = 74
    UNKNOWN_LEADER_EPOCH = 75
    UNSUPPORTED_COMPRESSION_TYPE = 76
    STALE_BROKER_EPOCH = 77
    OFFSET_NOT_AVAILABLE = 78
    MEMBER_ID_REQUIRED = 79
    PREFERRED_LEADER_NOT_AVAILABLE = 80
    GROUP_MAX_SIZE_REACHED = 81
    FENCED_INSTANCE_ID = 82
    ELIGIBLE_LEADERS_NOT_AVAILABLE = 83
    ELECTION_NOT_NEEDED = 84
    NO_REASSIGNMENT_IN_PROGRESS = 85
    GROUP_SUBSCRIBED_TO_TOPIC = 86
    INVALID_RECORD = 87
    UNSTABLE_OFFSET_COMMIT = 88
    THROTTLING_QUOTA_EXCEEDED = 89
    PRODUCER_FENCED = 90
    RESOURCE_NOT_FOUND = 91
    DUPLICATE_RESOURCE = 92
    UNACCEPTABLE_CREDENTIAL = 93
    INCONSISTENT_VOTER_SET = 94
    INVALID_UPDATE_VERSION = 95
    FEATURE_UPDATE_FAILED = 96
    PRINCIPAL_DESERIALIZATION_FAILURE = 97
    SNAPSHOT_NOT_FOUND = 98
    POSITION_OUT_OF_RANGE = 99
    UNKNOWN_TOPIC_ID = 100
    DUPLICATE_BROKER_REGISTRATION = 101
    BROKER_ID_NOT_REGISTERED = 102
    INCONSISTENT_TOPIC_ID = 103
    INCONSISTENT_CLUSTER_ID = 104
    TRANSACTIONAL_ID_NOT_FOUND = 105
    FETCH_SESSION_TOPIC_ID_ERROR = 106
    INELIGIBLE_REPLICA = 107
    NEW_LEADER_ELECTED = 108
    OFFSET_MOVED_TO_TIERED_STORAGE = 109
    FENCED_MEMBER_EPOCH = 110
    UNRELEASED_INSTANCE_ID = 111
    UNSUPPORTED_ASSIGNOR = 112
    STALE_MEMBER_EPOCH = 113
    MISMATCHED_ENDPOINT_TYPE = 114
    UNSUPPORTED_ENDPOINT_TYPE = 115
    UNKNOWN_CONTROLLER_ID = 116
    UNKNOWN_SUBSCRIPTION_ID = 117
    TELEMETRY_TOO_LARGE = 118
    INVALID_REGISTRATION = 119
    TRANSACTION_ABORTABLE = 120
    INVALID_RECORD_STATE = 121
    SHARE_SESSION_NOT_FOUND = 122
    INVALID_SHARE_SESSION_EPOCH = 123
    FENCED_STATE_EPOCH = 124
    INVALID_VOTER_KEY = 125
    DUPLICATE_VOTER = 126
    VOTER_NOT_FOUND = 127


class RecordError(NamedTuple):
    """What is wrong with one record of a batch: an element of `record_errors` in a produce answer."""

    batch_index: int
    """The record's index in its batch, from 0."""
    message: str


class BrokerError(Exception):
    """An error with a number on the wire: the broker raises it, the client raises it again."""

    code: ClassVar[ErrorCode] = ErrorCode.UNKNOWN_SERVER_ERROR
    retriable: ClassVar[bool] = False
    """Whether the same request may succeed later."""
    refresh_metadata: ClassVar[bool] = False
    """Whether the client should fetch metadata before it tries again."""

    def __init__(self, message: str = "", *, record_errors: Iterable[RecordError] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.record_errors = tuple(record_errors)
        """The records that a batch was refused for, where single ones are to blame."""

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}" if self.message else self.code.name


class UnknownServerError(BrokerError):
    """The broker failed in a way that it has no code for."""

    code = ErrorCode.UNKNOWN_SERVER_ERROR


class OffsetOutOfRangeError(BrokerError):
    """The offset lies outside what the partition holds."""

    code = ErrorCode.OFFSET_OUT_OF_RANGE


class CorruptMessageError(BrokerError):
    """A batch is damaged: length, magic, checksum or encoding is wrong."""

    code = ErrorCode.CORRUPT_MESSAGE
    retriable = True


class UnknownTopicOrPartitionError(BrokerError):
    """This broker does not host, or does not know, the topic or partition."""

    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    retriable = True
    refresh_metadata = True


class InvalidFetchSizeError(BrokerError):
    """The size asked for in a fetch makes no sense."""

    code = ErrorCode.INVALID_FETCH_SIZE


class LeaderNotAvailableError(BrokerError):
    """The partition has no leader at the moment; an election may be under way."""

    code = ErrorCode.LEADER_NOT_AVAILABLE
    retriable = True
    refresh_metadata = True


class NotLeaderOrFollowerError(BrokerError):
    """This broker does not lead, or does not host, the partition."""

    code = ErrorCode.NOT_LEADER_OR_FOLLOWER
    retriable = True
    refresh_metadata = True


class RequestTimedOutError(BrokerError):
    """The time given in the request ran out before it was done; it may still be done."""

    code = ErrorCode.REQUEST_TIMED_OUT
    retriable = True


class BrokerNotAvailableError(BrokerError):
    """The broker named in the request is not alive."""

    code = ErrorCode.BROKER_NOT_AVAILABLE


class ReplicaNotAvailableError(BrokerError):
    """The replica asked for is not on this broker, or is being moved."""

    code = ErrorCode.REPLICA_NOT_AVAILABLE
    retriable = True
    refresh_metadata = True


class MessageTooLargeError(BrokerError):
    """A batch is larger than the topic allows, or would inflate to more than is allowed."""

    code = ErrorCode.MESSAGE_TOO_LARGE


class StaleControllerEpochError(BrokerError):
    """The request comes from a controller that has been replaced."""

    code = ErrorCode.STALE_CONTROLLER_EPOCH


class OffsetMetadataTooLargeError(BrokerError):
    """The text committed along with an offset is too long."""

    code = ErrorCode.OFFSET_METADATA_TOO_LARGE


class NetworkError(BrokerError):
    """The connection was lost before the answer came."""

    code = ErrorCode.NETWORK_EXCEPTION
    retriable = True
    refresh_metadata = True


class CoordinatorLoadInProgressError(BrokerError):
    """The coordinator is still reading its state."""

    code = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    retriable = True


class CoordinatorNotAvailableError(BrokerError):
    """There is no coordinator for this group or transactional id at the moment."""

    code = ErrorCode.COORDINATOR_NOT_AVAILABLE
    retriable = True


class NotCoordinatorError(BrokerError):
    """This broker does not coordinate the group or transactional id."""

    code = ErrorCode.NOT_COORDINATOR
    retriable = True


class InvalidTopicError(BrokerError):
    """The topic's name is not allowed, or the operation is not allowed on this topic."""

    code = ErrorCode.INVALID_TOPIC_EXCEPTION


class RecordListTooLargeError(BrokerError):
    """The batches of one partition are together larger than a segment."""

    code = ErrorCode.RECORD_LIST_TOO_LARGE


class NotEnoughReplicasError(BrokerError):
    """Fewer replicas are in sync than `min.insync.replicas`; nothing was appended."""

    code = ErrorCode.NOT_ENOUGH_REPLICAS
    retriable = True


class NotEnoughReplicasAfterAppendError(BrokerError):
    """Appended, but to fewer in-sync replicas than `min.insync.replicas`."""

    code = ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND
    retriable = True


class InvalidRequiredAcksError(BrokerError):
    """`acks` is not 0, 1 or -1."""

    code = ErrorCode.INVALID_REQUIRED_ACKS


class IllegalGenerationError(BrokerError):
    """The member speaks of another generation of the group than the present one."""

    code = ErrorCode.ILLEGAL_GENERATION


class InconsistentGroupProtocolError(BrokerError):
    """The member shares no assignment protocol with the rest of the group."""

    code = ErrorCode.INCONSISTENT_GROUP_PROTOCOL


class InvalidGroupIdError(BrokerError):
    """The group id is empty or not allowed here."""

    code = ErrorCode.INVALID_GROUP_ID


class UnknownMemberIdError(BrokerError):
    """The group has no such member."""

    code = ErrorCode.UNKNOWN_MEMBER_ID


class InvalidSessionTimeoutError(BrokerError):
    """The session timeout lies outside what the broker allows."""

    code = ErrorCode.INVALID_SESSION_TIMEOUT


class RebalanceInProgressError(BrokerError):
    """The group is rebalancing; the member must join again."""

    code = ErrorCode.REBALANCE_IN_PROGRESS


class InvalidCommitOffsetSizeError(BrokerError):
    """The offsets of one commit are together too large for one batch."""

    code = ErrorCode.INVALID_COMMIT_OFFSET_SIZE


class TopicAuthorizationFailedError(BrokerError):
    """The user may not do this with the topic."""

    code = ErrorCode.TOPIC_AUTHORIZATION_FAILED


class GroupAuthorizationFailedError(BrokerError):
    """The user may not do this with the group."""

    code = ErrorCode.GROUP_AUTHORIZATION_FAILED


class ClusterAuthorizationFailedError(BrokerError):
    """The user may not do this with the cluster."""

    code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED


class InvalidTimestampError(BrokerError):
    """A record's timestamp is further from the broker's clock than the topic allows."""

    code = ErrorCode.INVALID_TIMESTAMP


class UnsupportedSaslMechanismError(BrokerError):
    """The broker does not offer this SASL mechanism."""

    code = ErrorCode.UNSUPPORTED_SASL_MECHANISM


class IllegalSaslStateError(BrokerError):
    """The request does not fit the state of the SASL exchange."""

    code = ErrorCode.ILLEGAL_SASL_STATE


class UnsupportedVersionError(BrokerError):
    """The broker does not serve this API in this version."""

    code = ErrorCode.UNSUPPORTED_VERSION


class TopicAlreadyExistsError(BrokerError):
    """A topic of this name exists."""

    code = ErrorCode.TOPIC_ALREADY_EXISTS


class InvalidPartitionsError(BrokerError):
    """The number of partitions is not positive, or would shrink."""

    code = ErrorCode.INVALID_PARTITIONS


class InvalidReplicationFactorError(BrokerError):
    """The replication factor is not positive, or larger than the number of brokers."""

    code = ErrorCode.INVALID_REPLICATION_FACTOR


class InvalidReplicaAssignmentError(BrokerError):
    """The assignment of replicas to brokers is not allowed."""

    code = ErrorCode.INVALID_REPLICA_ASSIGNMENT


class InvalidConfigError(BrokerError):
    """A config has an unknown name or a value that is not allowed."""

    code = ErrorCode.INVALID_CONFIG


class NotControllerError(BrokerError):
    """This broker is not the active controller."""

    code = ErrorCode.NOT_CONTROLLER
    retriable = True


class InvalidRequestError(BrokerError):
    """The request contradicts itself, or what the protocol allows."""

    code = ErrorCode.INVALID_REQUEST


class UnsupportedForMessageFormatError(BrokerError):
    """The format of the partition's records does not allow this."""

    code = ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT


class PolicyViolationError(BrokerError):
    """A policy set by the operator forbids this."""

    code = ErrorCode.POLICY_VIOLATION


class OutOfOrderSequenceNumberError(BrokerError):
    """A batch's sequence does not follow the last one of its producer."""

    code = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


class DuplicateSequenceNumberError(BrokerError):
    """The batch was appended before, longer ago than the broker remembers offsets."""

    code = ErrorCode.DUPLICATE_SEQUENCE_NUMBER


class InvalidProducerEpochError(BrokerError):
    """A newer incarnation of this producer has written already."""

    code = ErrorCode.INVALID_PRODUCER_EPOCH


class InvalidTxnStateError(BrokerError):
    """The request does not fit the state of the transaction."""

    code = ErrorCode.INVALID_TXN_STATE


class InvalidProducerIdMappingError(BrokerError):
    """The producer id is not the one that belongs to the transactional id."""

    code = ErrorCode.INVALID_PRODUCER_ID_MAPPING


class InvalidTransactionTimeoutError(BrokerError):
    """The transaction timeout is larger than the broker allows."""

    code = ErrorCode.INVALID_TRANSACTION_TIMEOUT


class ConcurrentTransactionsError(BrokerError):
    """The transaction before this one is still being completed."""

    code = ErrorCode.CONCURRENT_TRANSACTIONS
    retriable = True


class TransactionCoordinatorFencedError(BrokerError):
    """The marker comes from a transaction coordinator that has been replaced."""

    code = ErrorCode.TRANSACTION_COORDINATOR_FENCED


class TransactionalIdAuthorizationFailedError(BrokerError):
    """The user may not use the transactional id."""

    code = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


class SecurityDisabledError(BrokerError):
    """No authorizer is configured."""

    code = ErrorCode.SECURITY_DISABLED


class OperationNotAttemptedError(BrokerError):
    """Not tried, because another part of the same request failed."""

    code = ErrorCode.OPERATION_NOT_ATTEMPTED


class KafkaStorageError(BrokerError):
    """The log directory that holds the partition is offline."""

    code = ErrorCode.KAFKA_STORAGE_ERROR
    retriable = True
    refresh_metadata = True


class LogDirNotFoundError(BrokerError):
    """The broker has no such log directory."""

    code = ErrorCode.LOG_DIR_NOT_FOUND


class SaslAuthenticationFailedError(BrokerError):
    """The credentials are wrong."""

    code = ErrorCode.SASL_AUTHENTICATION_FAILED


class UnknownProducerIdError(BrokerError):
    """The partition knows nothing (any more) of this producer."""

    code = ErrorCode.UNKNOWN_PRODUCER_ID


class ReassignmentInProgressError(BrokerError):
    """The partition is being reassigned."""

    code = ErrorCode.REASSIGNMENT_IN_PROGRESS


class DelegationTokenAuthDisabledError(BrokerError):
    """Delegation tokens are not enabled."""

    code = ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED


class DelegationTokenNotFoundError(BrokerError):
    """There is no such delegation token."""

    code = ErrorCode.DELEGATION_TOKEN_NOT_FOUND


class DelegationTokenOwnerMismatchError(BrokerError):
    """The delegation token belongs to somebody else."""

    code = ErrorCode.DELEGATION_TOKEN_OWNER_MISMATCH


class DelegationTokenRequestNotAllowedError(BrokerError):
    """Delegation tokens cannot be managed over this connection."""

    code = ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED


class DelegationTokenAuthorizationFailedError(BrokerError):
    """The user may not use the delegation token."""

    code = ErrorCode.DELEGATION_TOKEN_AUTHORIZATION_FAILED


class DelegationTokenExpiredError(BrokerError):
    """The delegation token has expired."""

    code = ErrorCode.DELEGATION_TOKEN_EXPIRED


class InvalidPrincipalTypeError(BrokerError):
    """The type of principal is not supported here."""

    code = ErrorCode.INVALID_PRINCIPAL_TYPE


class NonEmptyGroupError(BrokerError):
    """The group still has members."""

    code = ErrorCode.NON_EMPTY_GROUP


class GroupIdNotFoundError(BrokerError):
    """There is no such group."""

    code = ErrorCode.GROUP_ID_NOT_FOUND


class FetchSessionIdNotFoundError(BrokerError):
    """The broker has no such fetch session."""

    code = ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    retriable = True


class InvalidFetchSessionEpochError(BrokerError):
    """The fetch session is at another epoch."""

    code = ErrorCode.INVALID_FETCH_SESSION_EPOCH
    retriable = True


class ListenerNotFoundError(BrokerError):
    """The leader has no endpoint on the listener that was asked."""

    code = ErrorCode.LISTENER_NOT_FOUND
    retriable = True
    refresh_metadata = True


class TopicDeletionDisabledError(BrokerError):
    """`delete.topic.enable` is false."""

    code = ErrorCode.TOPIC_DELETION_DISABLED


class FencedLeaderEpochError(BrokerError):
    """The leader epoch of the request is older than the broker's."""

    code = ErrorCode.FENCED_LEADER_EPOCH
    retriable = True
    refresh_metadata = True


class UnknownLeaderEpochError(BrokerError):
    """The leader epoch of the request is newer than the broker's."""

    code = ErrorCode.UNKNOWN_LEADER_EPOCH
    retriable = True


class UnsupportedCompressionTypeError(BrokerError):
    """The broker does not know the batch's compression."""

    code = ErrorCode.UNSUPPORTED_COMPRESSION_TYPE


class StaleBrokerEpochError(BrokerError):
    """The request speaks of an earlier life of a broker."""

    code = ErrorCode.STALE_BROKER_EPOCH


class OffsetNotAvailableError(BrokerError):
    """A new leader does not know its high watermark yet."""

    code = ErrorCode.OFFSET_NOT_AVAILABLE
    retriable = True


class MemberIdRequiredError(BrokerError):
    """A new member must join again under the id it was given."""

    code = ErrorCode.MEMBER_ID_REQUIRED


class PreferredLeaderNotAvailableError(BrokerError):
    """The preferred leader is not alive or not in sync."""

    code = ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE
    retriable = True
    refresh_metadata = True


class GroupMaxSizeReachedError(BrokerError):
    """The group has as many members as it may have."""

    code = ErrorCode.GROUP_MAX_SIZE_REACHED


class FencedInstanceIdError(BrokerError):
    """Another member has taken over the `group.instance.id`."""

    code = ErrorCode.FENCED_INSTANCE_ID


class EligibleLeadersNotAvailableError(BrokerError):
    """No replica that could lead is alive."""

    code = ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE
    retriable = True
    refresh_metadata = True


class ElectionNotNeededError(BrokerError):
    """The partition has the right leader already."""

    code = ErrorCode.ELECTION_NOT_NEEDED
    retriable = True
    refresh_metadata = True


class NoReassignmentInProgressError(BrokerError):
    """The partition is not being reassigned."""

    code = ErrorCode.NO_REASSIGNMENT_IN_PROGRESS


class GroupSubscribedToTopicError(BrokerError):
    """The group still subscribes to the topic."""

    code = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC


class InvalidRecordError(BrokerError):
    """A batch, or a record in it, breaks a rule of the topic or of the format."""

    code = ErrorCode.INVALID_RECORD


class UnstableOffsetCommitError(BrokerError):
    """Offsets of an open transaction are not decided yet."""

    code = ErrorCode.UNSTABLE_OFFSET_COMMIT
    retriable = True


class ThrottlingQuotaExceededError(BrokerError):
    """The user's quota is used up for the moment."""

    code = ErrorCode.THROTTLING_QUOTA_EXCEEDED
    retriable = True


class ProducerFencedError(BrokerError):
    """A newer producer has taken over the transactional id."""

    code = ErrorCode.PRODUCER_FENCED


class ResourceNotFoundError(BrokerError):
    """What the request names does not exist."""

    code = ErrorCode.RESOURCE_NOT_FOUND


class DuplicateResourceError(BrokerError):
    """The request names the same thing twice."""

    code = ErrorCode.DUPLICATE_RESOURCE


class UnacceptableCredentialError(BrokerError):
    """The credential does not meet the requirements."""

    code = ErrorCode.UNACCEPTABLE_CREDENTIAL


class InconsistentVoterSetError(BrokerError):
    """The set of voters differs from the one expected."""

    code = ErrorCode.INCONSISTENT_VOTER_SET


class InvalidUpdateVersionError(BrokerError):
    """The version of the update is not the one expected."""

    code = ErrorCode.INVALID_UPDATE_VERSION


class FeatureUpdateFailedError(BrokerError):
    """A feature could not be updated."""

    code = ErrorCode.FEATURE_UPDATE_FAILED


class PrincipalDeserializationFailureError(BrokerError):
    """A forwarded request's principal could not be read."""

    code = ErrorCode.PRINCIPAL_DESERIALIZATION_FAILURE


class SnapshotNotFoundError(BrokerError):
    """There is no such snapshot."""

    code = ErrorCode.SNAPSHOT_NOT_FOUND


class PositionOutOfRangeError(BrokerError):
    """The position lies outside the snapshot."""

    code = ErrorCode.POSITION_OUT_OF_RANGE


class UnknownTopicIdError(BrokerError):
    """This broker knows no topic of this id."""

    code = ErrorCode.UNKNOWN_TOPIC_ID
    retriable = True
    refresh_metadata = True


class DuplicateBrokerRegistrationError(BrokerError):
    """Another live broker holds this broker id."""

    code = ErrorCode.DUPLICATE_BROKER_REGISTRATION


class BrokerIdNotRegisteredError(BrokerError):
    """No broker of this id is registered."""

    code = ErrorCode.BROKER_ID_NOT_REGISTERED


class InconsistentTopicIdError(BrokerError):
    """The log's topic id is not the one in the request."""

    code = ErrorCode.INCONSISTENT_TOPIC_ID
    retriable = True
    refresh_metadata = True


class InconsistentClusterIdError(BrokerError):
    """The request is meant for another cluster."""

    code = ErrorCode.INCONSISTENT_CLUSTER_ID


class TransactionalIdNotFoundError(BrokerError):
    """There is no such transactional id."""

    code = ErrorCode.TRANSACTIONAL_ID_NOT_FOUND


class FetchSessionTopicIdError(BrokerError):
    """The fetch session mixes topic names and topic ids."""

    code = ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
    retriable = True


class IneligibleReplicaError(BrokerError):
    """A replica that may not be in the ISR was proposed for it."""

    code = ErrorCode.INELIGIBLE_REPLICA


class NewLeaderElectedError(BrokerError):
    """The change of the ISR made another broker the leader."""

    code = ErrorCode.NEW_LEADER_ELECTED


class OffsetMovedToTieredStorageError(BrokerError):
    """The offset is no longer on the leader's own disk."""

    code = ErrorCode.OFFSET_MOVED_TO_TIERED_STORAGE


class FencedMemberEpochError(BrokerError):
    """The member speaks of an epoch that has passed."""

    code = ErrorCode.FENCED_MEMBER_EPOCH


class UnreleasedInstanceIdError(BrokerError):
    """Another member still holds the instance id."""

    code = ErrorCode.UNRELEASED_INSTANCE_ID


class UnsupportedAssignorError(BrokerError):
    """The group coordinator does not know the assignor."""

    code = ErrorCode.UNSUPPORTED_ASSIGNOR


class StaleMemberEpochError(BrokerError):
    """The member must learn its new epoch before it goes on."""

    code = ErrorCode.STALE_MEMBER_EPOCH


class MismatchedEndpointTypeError(BrokerError):
    """The request came in on another type of endpoint than it asks about."""

    code = ErrorCode.MISMATCHED_ENDPOINT_TYPE


class UnsupportedEndpointTypeError(BrokerError):
    """The broker does not know this type of endpoint."""

    code = ErrorCode.UNSUPPORTED_ENDPOINT_TYPE


class UnknownControllerIdError(BrokerError):
    """No controller of this id is known."""

    code = ErrorCode.UNKNOWN_CONTROLLER_ID


class UnknownSubscriptionIdError(BrokerError):
    """The telemetry subscription is unknown or out of date."""

    code = ErrorCode.UNKNOWN_SUBSCRIPTION_ID


class TelemetryTooLargeError(BrokerError):
    """The client pushed more telemetry than is allowed."""

    code = ErrorCode.TELEMETRY_TOO_LARGE


class InvalidRegistrationError(BrokerError):
    """The registration of a node is not allowed."""

    code = ErrorCode.INVALID_REGISTRATION


class TransactionAbortableError(BrokerError):
    """The transaction cannot go on, but may be aborted."""

    code = ErrorCode.TRANSACTION_ABORTABLE


class InvalidRecordStateError(BrokerError):
    """The record is in another state than the acknowledgement assumes."""

    code = ErrorCode.INVALID_RECORD_STATE


class ShareSessionNotFoundError(BrokerError):
    """The broker has no such share session."""

    code = ErrorCode.SHARE_SESSION_NOT_FOUND
    retriable = True


class InvalidShareSessionEpochError(BrokerError):
    """The share session is at another epoch."""

    code = ErrorCode.INVALID_SHARE_SESSION_EPOCH
    retriable = True


class FencedStateEpochError(BrokerError):
    """The state of the share group has a newer epoch."""

    code = ErrorCode.FENCED_STATE_EPOCH


class InvalidVoterKeyError(BrokerError):
    """The key of the voter is not the one expected."""

    code = ErrorCode.INVALID_VOTER_KEY


class DuplicateVoterError(BrokerError):
    """The voter is in the set already."""

    code = ErrorCode.DUPLICATE_VOTER


class VoterNotFoundError(BrokerError):
    """The voter is not in the set."""

    code = ErrorCode.VOTER_NOT_FOUND


ERRORS: Final[Mapping[ErrorCode, type[BrokerError]]] = MappingProxyType(
    {error.code: error for error in BrokerError.__subclasses__()}
)
"""The class of each code but NONE."""


def error_for(code: int, message: str | None = None) -> BrokerError:
    """Return the exception that stands for ``code``, for the caller to raise.

    A code that this version does not know becomes :class:`UnknownServerError` naming the number.
    ``code`` must not be NONE.
    """
    assert code != ErrorCode.NONE, "NONE is no error"
    try:
        known = ErrorCode(code)
    except ValueError:
        return UnknownServerError(f"unknown error code {code}" + (f": {message}" if message else ""))
    return ERRORS[known](message or "")
