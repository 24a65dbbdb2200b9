"""`scripts/quickstart`: any file, byte for byte, and what it prints can be typed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.commands import LocalCluster, Ran, run

FILES = {
    "no newline at the end": b"one\ntwo",
    "empty": b"",
    "only newlines": b"\n\n\n",
    "CR LF": b"one\r\ntwo\r\n",
    "binary": bytes(range(256)) * 500,
    "lines over max.message.bytes": b"a" * 1_500_000 + b"\n" + b"b" * 1_048_576 + b"\n\n" + b"c" * 524_288,
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Quickstart's own cluster, in a directory of its own."""
    cluster = LocalCluster(tmp_path_factory.mktemp("quickstart") / "cluster")
    yield cluster
    cluster.verb("down", "--delete")
    assert not cluster.directory.exists()


def quickstart(cluster: LocalCluster, *arguments: Path) -> Ran:
    return run("kafkalite", "quickstart", *arguments, "--dir", cluster.directory)


def hashes(done: Ran) -> tuple[str, str]:
    went_in, came_out = re.findall(r"SHA-256 (?:in|out) +([0-9a-f]{64})\n", done.text)
    return went_in, came_out


def test_without_a_file_and_then_what_it_says_to_try(cluster: LocalCluster) -> None:
    done = quickstart(cluster)
    chosen = Path(re.findall(r"3\. (/var/log/\S+): in through", done.text)[0])
    went_in, came_out = hashes(done)
    assert went_in == came_out == hashlib.sha256(chosen.read_bytes()).hexdigest()
    for place in re.findall(r"records +(\S+)  \d+ bytes", done.text):
        assert Path(place).stat().st_size > 0
    assert done.text.count("records   ") == 3
    assert re.search(r'znode +/controller  \{.*"brokerid":[123]', done.text)
    assert re.search(r"znode +/brokers/topics/quickstart/partitions/0/state  \{.*\"isr\":", done.text)
    assert cluster.status(expect=0)["state"] == "healthy"

    commands = re.findall(r"^    (.*)$", done.text.partition("to try next")[2], re.MULTILINE)
    assert len(commands) == 4
    outputs = [run("bash", "-c", command) for command in commands]
    assert outputs[0].out.rstrip(b"\n") == chosen.read_bytes().rstrip(b"\n")
    assert cluster.status(expect=0)["state"] == "healthy", "the last of them brings the broker back"


@pytest.mark.parametrize("name", FILES)
def test_any_file(cluster: LocalCluster, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(FILES[name])
    done = quickstart(cluster, file)
    assert hashes(done) == (hashlib.sha256(FILES[name]).hexdigest(),) * 2
    assert (cluster.directory / "scratch" / "quickstart.out").read_bytes() == FILES[name]


def test_a_file_that_is_not_there(cluster: LocalCluster, tmp_path: Path) -> None:
    refused = run("kafkalite", "quickstart", tmp_path / "nothing", "--dir", cluster.directory, expect=2)
    assert "does not exist" in refused.err
