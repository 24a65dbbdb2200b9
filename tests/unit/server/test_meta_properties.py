"""meta.properties: written and read back, and every mismatch is a line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from kafkalite.common import BrokerId, Uuid
from kafkalite.log.files import DiskFiles
from kafkalite.server import meta_properties
from kafkalite.server.meta_properties import InconsistentMetaProperties, MetaProperties

CLUSTER = Uuid("4L6g3nShT-eMCtK--X86sw")


def test_round_trip(tmp_path: Path) -> None:
    properties = MetaProperties(BrokerId(3), CLUSTER, (0x1000_0001, 0x1000_0000))
    meta_properties.write(DiskFiles(), str(tmp_path), properties)
    assert meta_properties.read(DiskFiles(), [str(tmp_path), str(tmp_path / "none")]) == {
        str(tmp_path): properties
    }


def test_kafkas_own_file_is_read() -> None:
    text = "#\n#Tue Nov 14 22:13:20 UTC 2023\ncluster.id=4L6g3nShT-eMCtK--X86sw\nversion=0\nbroker.id=1\n"
    assert meta_properties.parse(text, "x") == MetaProperties(BrokerId(1), CLUSTER)


@pytest.mark.parametrize(
    ("text", "words"),
    [("version=1\nbroker.id=1\n", "version 1"), ("version=0\nbroker.id=one\n", "damaged")],
)
def test_files_that_are_not_ours_to_read(text: str, words: str) -> None:
    with pytest.raises(InconsistentMetaProperties, match=words):
        meta_properties.parse(text, "x")


def test_what_fits() -> None:
    found = {"/a": MetaProperties(BrokerId(1), CLUSTER), "/b": MetaProperties(None, None)}
    assert meta_properties.check(found, cluster_id=CLUSTER, configured_id=None) == 1
    assert meta_properties.check(found, cluster_id=CLUSTER, configured_id=BrokerId(1)) == 1
    assert meta_properties.check({}, cluster_id=CLUSTER, configured_id=None) is None


@pytest.mark.parametrize(
    ("found", "configured", "words"),
    [
        ({"/a": MetaProperties(BrokerId(1), Uuid("x" * 22))}, 1, "holds data of cluster x"),
        ({"/a": MetaProperties(BrokerId(1), CLUSTER)}, 2, "belongs to broker 1, but broker.id is 2"),
        (
            {"/a": MetaProperties(BrokerId(1), CLUSTER), "/b": MetaProperties(BrokerId(2), CLUSTER)},
            1,
            "different brokers",
        ),
    ],
)
def test_what_does_not_fit(found: dict[str, MetaProperties], configured: int, words: str) -> None:
    with pytest.raises(InconsistentMetaProperties, match=words):
        meta_properties.check(found, cluster_id=CLUSTER, configured_id=BrokerId(configured))


def test_sessions_of_all_directories_newest_first_and_once() -> None:
    found = {"/a": MetaProperties(None, None, (3, 2)), "/b": MetaProperties(None, None, (3, 1))}
    assert list(meta_properties.own_sessions(found)) == [3, 2, 1]
