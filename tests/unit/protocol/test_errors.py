"""The error classes against Kafka's own table: names, numbers, what a client may do."""

import pytest

from kafkalite.protocol.errors import (
    ERRORS,
    BrokerError,
    ErrorCode,
    NotLeaderOrFollowerError,
    RecordError,
    UnknownServerError,
    error_for,
)

RETRIABLE = {
    *(2, 3, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 41, 51, 56, 70, 71, 72, 74, 75, 78, 80, 83, 84, 88),
    *(89, 100, 103, 106, 122, 123),
}
REFRESH = {3, 5, 6, 9, 13, 56, 72, 74, 80, 83, 84, 100, 103}


def test_every_code_but_none_has_one_class() -> None:
    assert set(ERRORS) == set(ErrorCode) - {ErrorCode.NONE}
    assert [int(code) for code in ErrorCode] == list(range(-1, 128))
    assert len({error.__name__ for error in ERRORS.values()}) == len(ERRORS)


def test_flags_are_those_of_the_table() -> None:
    assert {int(code) for code, error in ERRORS.items() if error.retriable} == RETRIABLE
    assert {int(code) for code, error in ERRORS.items() if error.refresh_metadata} == REFRESH


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, "NotLeaderOrFollowerError"),
        (ErrorCode.INVALID_TOPIC_EXCEPTION, "InvalidTopicError"),
        (ErrorCode.KAFKA_STORAGE_ERROR, "KafkaStorageError"),
        (ErrorCode.UNKNOWN_SERVER_ERROR, "UnknownServerError"),
        (ErrorCode.NETWORK_EXCEPTION, "NetworkError"),
        (ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR, "FetchSessionTopicIdError"),
    ],
)
def test_class_names_are_kafkas_in_camel_case(code: ErrorCode, name: str) -> None:
    assert ERRORS[code].__name__ == name
    assert ERRORS[code].__doc__


def test_error_for_gives_back_the_class_and_the_message() -> None:
    error = error_for(6, "orders-2 is led by 3")
    assert type(error) is NotLeaderOrFollowerError
    assert error.message == "orders-2 is led by 3"
    assert str(error) == "NOT_LEADER_OR_FOLLOWER: orders-2 is led by 3"
    assert str(error_for(6)) == "NOT_LEADER_OR_FOLLOWER"


def test_an_unknown_code_is_named_and_kept_apart_from_a_bug() -> None:
    error = error_for(999, "from the future")
    assert type(error) is UnknownServerError
    assert "999" in error.message
    assert "from the future" in error.message
    with pytest.raises(AssertionError):
        error_for(0)


def test_records_to_blame_travel_with_the_error() -> None:
    error: BrokerError = ERRORS[ErrorCode.INVALID_RECORD]("no key", record_errors=[RecordError(2, "no key")])
    assert error.record_errors == (RecordError(2, "no key"),)
