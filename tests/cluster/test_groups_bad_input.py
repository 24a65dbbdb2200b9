"""Bad requests about groups, to a real broker: Kafka's error code for each, and the group goes on."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
import pytest

from kafkalite.cluster.launcher import Cluster
from kafkalite.protocol.consumer_protocol import Subscription
from kafkalite.protocol.errors import ErrorCode as E

Json = dict[str, Any]
Cases = dict[str, tuple[Json, E]]
LONG = "x" * 4097
METADATA = Subscription(("t",)).encode()


class Broker:
    """Asks one broker; the only members that there are were let in by :meth:`enter`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.member = ""
        """Of group g, in generation 1."""
        self.static = ""
        """Of group s: the member whose instance id is i."""

    def ask(self, api: str, **request: Any) -> Json:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            headers = {"Content-Type": "application/msgpack"}
            connection.request("POST", f"/v1/{api}", msgpack.packb(request), headers)
            answer = connection.getresponse()
            body: Json = msgpack.unpackb(answer.read())
        finally:
            connection.close()
        assert answer.status == 200, body
        return body

    def join(self, group: str = "g", **changes: Any) -> Json:
        request: Json = {
            "group_id": group,
            "session_timeout_ms": 30_000,
            "rebalance_timeout_ms": 30_000,
            "member_id": "",
            "protocol_type": "consumer",
            "protocols": [{"name": "range", "metadata": METADATA}],
        }
        return self.ask("join_group", **request | changes)

    def sync(self, group: str = "g", **changes: Any) -> Json:
        request: Json = {
            "group_id": group,
            "generation_id": 1,
            "member_id": self.member,
            "protocol_type": "consumer",
            "protocol_name": "range",
            "assignments": [],
        }
        return self.ask("sync_group", **request | changes)

    def heartbeat(self, group: str = "g", **changes: Any) -> int:
        request: Json = {"group_id": group, "generation_id": 1, "member_id": self.member}
        code: int = self.ask("heartbeat", **request | changes)["error_code"]
        return code

    def leave(self, group: str = "g", **member: Any) -> int:
        answer = self.ask("leave_group", group_id=group, members=[member])
        code: int = answer["error_code"] or answer["members"][0]["error_code"]
        return code

    def commit(
        self, group: str = "g", *, topic: str = "t", partition: int = 0, metadata: str = "", **changes: Any
    ) -> int:
        request: Json = {
            "group_id": group,
            "generation_id_or_member_epoch": 1,
            "member_id": self.member,
            "topics": [
                {
                    "name": topic,
                    "partitions": [
                        {
                            "partition_index": partition,
                            "committed_offset": 7,
                            "committed_metadata": metadata,
                        }
                    ],
                }
            ],
        }
        answer = self.ask("offset_commit", **request | changes)
        code: int = answer["topics"][0]["partitions"][0]["error_code"]
        return code

    def committed(self, group: str) -> Json:
        asked = {"group_id": group, "topics": [{"name": "t", "partition_indexes": [0]}]}
        found: Json = self.ask("offset_fetch", groups=[asked])["groups"][0]
        return found

    def deleted(self, group: str) -> int:
        answer = self.ask("delete_groups", groups_names=[group])
        code: int = answer["results"][0]["error_code"]
        return code

    def enter(self, group: str, **changes: Any) -> str:
        """Join, as the only member, and sync: generation 1."""
        joined = self.join(group, **changes)
        if joined["error_code"] == E.MEMBER_ID_REQUIRED:
            joined = self.join(group, **changes | {"member_id": joined["member_id"]})
        assert (joined["error_code"], joined["generation_id"]) == (E.NONE, 1)
        member: str = joined["member_id"]
        mine = {"member_id": member, "group_instance_id": changes.get("group_instance_id")}
        assert self.sync(group, **mine)["error_code"] == E.NONE
        return member


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    cluster = Cluster.load_or_create(
        tmp_path_factory.mktemp("groups-bad-input"),
        brokers=1,
        zookeepers=1,
        overrides={
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "200",
            "group.max.size": "2",
            "offsets.topic.num.partitions": "1",
        },
    )
    try:
        cluster.up(timeout_s=120)
        broker = Broker(cluster.layout.brokers[0].port)
        topic = {"name": "t", "num_partitions": 1, "replication_factor": 1, "assignments": [], "configs": []}
        created = broker.ask("create_topics", topics=[topic], timeout_ms=10_000)
        assert created["topics"][0]["error_code"] == E.NONE
        _until(
            lambda: broker.ask("find_coordinator", coordinator_keys=["g"])["coordinators"][0]["error_code"]
        )
        _until(lambda: broker.committed("g")["error_code"])
        _until(lambda: broker.commit("once", generation_id_or_member_epoch=-1, member_id=""))
        broker.member = broker.enter("g")
        broker.static = broker.enter("s", group_instance_id="i")
        yield broker
    finally:
        cluster.down(timeout_s=60, delete=True)


def _until(code: Callable[[], int], wanted: E = E.NONE) -> None:
    deadline = time.monotonic() + 60
    while code() != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.05)


JOINS: Cases = {
    "no group id": ({"group": ""}, E.INVALID_GROUP_ID),
    "a session too short": ({"session_timeout_ms": 199}, E.INVALID_SESSION_TIMEOUT),
    "a session too long": ({"session_timeout_ms": 1_800_001}, E.INVALID_SESSION_TIMEOUT),
    "an unknown member": ({"member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
    "a member of no group": ({"group": "new", "member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
    "another protocol type": ({"protocol_type": "connect"}, E.INCONSISTENT_GROUP_PROTOCOL),
    "no protocol type": ({"group": "new", "protocol_type": ""}, E.INCONSISTENT_GROUP_PROTOCOL),
    "no protocols": ({"group": "new", "protocols": []}, E.INCONSISTENT_GROUP_PROTOCOL),
    "no protocol in common": (
        {"protocols": [{"name": "mine", "metadata": METADATA}]},
        E.INCONSISTENT_GROUP_PROTOCOL,
    ),
    "an unknown instance": (
        {"group": "s", "member_id": "nobody", "group_instance_id": "j"},
        E.UNKNOWN_MEMBER_ID,
    ),
    "a fenced instance": (
        {"group": "s", "member_id": "nobody", "group_instance_id": "i"},
        E.FENCED_INSTANCE_ID,
    ),
}


@pytest.mark.parametrize("case", JOINS)
def test_join(broker: Broker, case: str) -> None:
    changes, code = JOINS[case]
    answer = broker.join(**changes)
    assert E(answer["error_code"]) == code
    assert answer["members"] == []
    assert broker.heartbeat() == E.NONE


SYNCS: Cases = {
    "no group id": ({"group": ""}, E.INVALID_GROUP_ID),
    "no such group": ({"group": "new"}, E.UNKNOWN_MEMBER_ID),
    "an unknown member": ({"member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
    "an old generation": ({"generation_id": 0}, E.ILLEGAL_GENERATION),
    "a generation to come": ({"generation_id": 2}, E.ILLEGAL_GENERATION),
    "another protocol": ({"protocol_name": "sticky"}, E.INCONSISTENT_GROUP_PROTOCOL),
    "another protocol type": ({"protocol_type": "connect"}, E.INCONSISTENT_GROUP_PROTOCOL),
    "a fenced instance": (
        {"group": "s", "member_id": "nobody", "group_instance_id": "i"},
        E.FENCED_INSTANCE_ID,
    ),
}


@pytest.mark.parametrize("case", SYNCS)
def test_sync(broker: Broker, case: str) -> None:
    changes, code = SYNCS[case]
    assert E(broker.sync(**changes)["error_code"]) == code
    assert broker.sync()["error_code"] == E.NONE


HEARTBEATS: Cases = {case: SYNCS[case] for case in SYNCS if "protocol" not in case}


@pytest.mark.parametrize("case", HEARTBEATS)
def test_heartbeat(broker: Broker, case: str) -> None:
    changes, code = HEARTBEATS[case]
    assert E(broker.heartbeat(**changes)) == code


LEAVES: Cases = {
    "no group id": ({"group": "", "member_id": "nobody"}, E.INVALID_GROUP_ID),
    "no such group": ({"group": "new", "member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
    "an unknown member": ({"member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
    "an unknown instance": ({"group_instance_id": "j"}, E.UNKNOWN_MEMBER_ID),
    "a fenced instance": (
        {"group": "s", "member_id": "nobody", "group_instance_id": "i"},
        E.FENCED_INSTANCE_ID,
    ),
}


@pytest.mark.parametrize("case", LEAVES)
def test_leave(broker: Broker, case: str) -> None:
    changes, code = LEAVES[case]
    assert E(broker.leave(**changes)) == code
    assert broker.heartbeat() == E.NONE
    assert broker.heartbeat("s", member_id=broker.static, group_instance_id="i") == E.NONE


ADMIN: Json = {"generation_id_or_member_epoch": -1, "member_id": ""}
COMMITS: Cases = {
    "an unknown member": ({"member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
    "nobody, while there are members": (ADMIN, E.UNKNOWN_MEMBER_ID),
    "an old generation": ({"generation_id_or_member_epoch": 0}, E.ILLEGAL_GENERATION),
    "a generation of no group": ({"group": "new"}, E.ILLEGAL_GENERATION),
    "a fenced instance": (
        {"group": "s", "member_id": "nobody", "group_instance_id": "i"},
        E.FENCED_INSTANCE_ID,
    ),
    "too much metadata": ({"metadata": LONG}, E.OFFSET_METADATA_TOO_LARGE),
    "an unknown topic": ({"topic": "u"}, E.UNKNOWN_TOPIC_OR_PARTITION),
    "an unknown partition": ({"partition": 1}, E.UNKNOWN_TOPIC_OR_PARTITION),
    "a negative partition": ({"partition": -1}, E.UNKNOWN_TOPIC_OR_PARTITION),
}


@pytest.mark.parametrize("case", COMMITS)
def test_commit(broker: Broker, case: str) -> None:
    changes, code = COMMITS[case]
    group = str(changes.get("group", "g"))
    before = broker.committed(group)
    assert E(broker.commit(**changes)) == code
    assert broker.committed(group) == before, "something was committed all the same"


def test_one_partition_that_is_refused_does_not_hinder_another(broker: Broker) -> None:
    partitions = [
        {"partition_index": 0, "committed_offset": 9, "committed_metadata": LONG[1:]},
        {"partition_index": 5, "committed_offset": 9},
    ]
    answer = broker.ask(
        "offset_commit",
        group_id="g",
        generation_id_or_member_epoch=1,
        member_id=broker.member,
        topics=[{"name": "t", "partitions": partitions}],
    )
    codes = [found["error_code"] for found in answer["topics"][0]["partitions"]]
    assert codes == [E.NONE, E.UNKNOWN_TOPIC_OR_PARTITION]
    [found] = broker.committed("g")["topics"][0]["partitions"]
    assert (found["committed_offset"], found["metadata"]) == (9, LONG[1:])


def test_what_is_asked_about_groups_that_there_are_not(broker: Broker) -> None:
    [found] = broker.committed("new")["topics"][0]["partitions"]
    assert (found["committed_offset"], found["metadata"], found["error_code"]) == (-1, "", E.NONE)
    [described] = broker.ask("describe_groups", groups=["new"])["groups"]
    assert (described["group_state"], described["members"]) == ("Dead", [])
    assert broker.deleted("new") == E.GROUP_ID_NOT_FOUND
    assert broker.deleted("g") == E.NON_EMPTY_GROUP
    wanted = [{"name": "t", "partitions": [{"partition_index": 0}]}]
    assert broker.ask("offset_delete", group_id="new", topics=wanted)["error_code"] == E.GROUP_ID_NOT_FOUND
    assert broker.ask("offset_delete", group_id="", topics=wanted)["error_code"] == E.INVALID_GROUP_ID
    [refused] = broker.ask("offset_delete", group_id="g", topics=wanted)["topics"][0]["partitions"]
    assert refused["error_code"] == E.GROUP_SUBSCRIBED_TO_TOPIC
    assert "new" not in [group["group_id"] for group in broker.ask("list_groups")["groups"]]


def test_the_empty_group_id_only_keeps_offsets(broker: Broker) -> None:
    """As in Kafka, for the sake of clients of old that knew no group ids."""
    assert broker.commit("", **ADMIN) == E.NONE
    [found] = broker.committed("")["topics"][0]["partitions"]
    assert found["committed_offset"] == 7
    assert broker.deleted("") == E.NONE


def test_members_beyond_the_groups_size(broker: Broker) -> None:
    first = broker.enter("full")
    second = broker.join("full")["member_id"]
    third = broker.join("full")["member_id"]  # An id is promised as long as there is room.
    with ThreadPoolExecutor() as threads:
        joining = threads.submit(broker.join, "full", member_id=second)
        _until(lambda: broker.heartbeat("full", member_id=first), E.REBALANCE_IN_PROGRESS)
        broker.leave("full", member_id=third)  # The group would wait for who was promised to come.
        assert broker.join("full", member_id=first)["error_code"] == E.NONE
        assert joining.result()["error_code"] == E.NONE
    refused = broker.join("full")
    assert (E(refused["error_code"]), refused["member_id"]) == (E.GROUP_MAX_SIZE_REACHED, "")
    for member in (first, second):
        assert broker.heartbeat("full", member_id=member, generation_id=2) == E.NONE


def test_a_member_that_never_syncs_is_removed_and_the_group_goes_on(broker: Broker) -> None:
    short = {"rebalance_timeout_ms": 300}
    first = broker.join("silent", **short)
    joined = broker.join("silent", member_id=first["member_id"], **short)
    assert (joined["error_code"], joined["leader"]) == (E.NONE, first["member_id"])
    mine = {"member_id": first["member_id"]}
    assert broker.heartbeat("silent", **mine) == E.NONE
    deadline = time.monotonic() + 30
    while (code := broker.heartbeat("silent", **mine)) == E.NONE:
        assert time.monotonic() < deadline, "it is still waited for"
        time.sleep(0.05)
    assert code == E.UNKNOWN_MEMBER_ID
    assert broker.join("silent", **short)["error_code"] == E.MEMBER_ID_REQUIRED
