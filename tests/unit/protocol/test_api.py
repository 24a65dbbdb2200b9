"""The table of APIs: complete, consistent, and fit to be printed."""

import json

import pytest

from kafkalite.protocol.api import APIS, api_of
from kafkalite.protocol.errors import ErrorCode
from kafkalite.protocol.fetch import FetchRequest, FetchResponse
from kafkalite.protocol.message import Message


def test_requests_lead_back_to_their_api() -> None:
    assert api_of(FetchRequest) is APIS["fetch"]
    assert all(api_of(api.request) is api for api in APIS.values())
    with pytest.raises(KeyError):
        api_of(FetchResponse)


def test_names_keys_and_messages_are_each_used_once() -> None:
    for values in (
        [api.name for api in APIS.values()],
        [api.key for api in APIS.values()],
        [api.request for api in APIS.values()],
        [api.response for api in APIS.values()],
    ):
        assert len(set(values)) == len(APIS) == 25
    for name, api in APIS.items():
        assert name == api.name
        assert api.request.__module__ == f"kafkalite.protocol.{name}"
        assert len(set(api.errors)) == len(api.errors)


def test_who_may_be_asked_what() -> None:
    assert {a.name for a in APIS.values() if a.read_only} == {
        *("metadata", "describe_cluster", "list_offsets", "offset_for_leader_epoch", "describe_configs"),
        *("offset_fetch", "describe_groups", "list_groups"),
    }
    assert {a.name for a in APIS.values() if a.controller_only} == {
        *("create_topics", "controlled_shutdown", "allocate_producer_ids")
    }
    assert {a.name for a in APIS.values() if a.inter_broker} == {
        *("leader_and_isr", "update_metadata", "stop_replica", "controlled_shutdown", "allocate_producer_ids")
    }
    assert all(ErrorCode.NOT_CONTROLLER in a.errors for a in APIS.values() if a.controller_only)


def test_a_description_says_types_defaults_and_errors() -> None:
    description = json.loads(json.dumps(APIS["fetch"].describe()))
    assert description["methods"] == ["POST"]
    assert description["summary"]
    fields = {field["name"]: field for field in description["request"]}
    assert fields["max_wait_ms"] == {"name": "max_wait_ms", "type": "int32", "required": True}
    assert fields["max_bytes"]["default"] == 2**31 - 1
    assert fields["cluster_id"] == {
        "name": "cluster_id",
        "type": "string",
        "nullable": True,
        "required": False,
        "default": None,
    }
    topic = {field["name"]: field for field in fields["topics"]["items"]["fields"]}
    assert topic["topic_id"]["type"] == "uuid"
    answer = {field["name"]: field for field in description["response"]}
    partition = answer["responses"]["items"]["fields"][2]["items"]["fields"]
    assert {
        "name": "records",
        "type": "bytes",
        "nullable": True,
        "required": False,
        "default": None,
    } in partition
    assert {"code": 1, "name": "OFFSET_OUT_OF_RANGE"} in description["errors"]
    assert {"code": -1, "name": "UNKNOWN_SERVER_ERROR"} in description["errors"]


@pytest.mark.parametrize("api", APIS.values(), ids=APIS)
def test_every_description_is_json_with_a_summary(api: object) -> None:
    from kafkalite.protocol.api import Api

    assert isinstance(api, Api)
    assert issubclass(api.request, Message)
    description = api.describe()
    assert description["summary"]
    assert json.loads(json.dumps(description)) == description
