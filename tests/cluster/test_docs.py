"""What the documents say is true: their commands and programs are taken out of them and run."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.commands import CHECKOUT, LocalCluster, run


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One broker: it is controller and leader of everything, as the protocol page's commands assume."""
    cluster = LocalCluster(tmp_path_factory.mktemp("docs") / "cluster")
    try:
        cluster.verb("up", "--brokers", "1")
        yield cluster.bootstrap
    finally:
        cluster.verb("down", "--delete", expect=None)


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of ``language`` in a document of the checkout."""
    text = (CHECKOUT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def json_documents(text: str) -> list[dict[str, object]]:
    decoder, at, found = json.JSONDecoder(), 0, []
    while (start := text.find("{", at)) >= 0:
        document, at = decoder.raw_decode(text, start)
        found.append(document)
    return found


def test_the_curl_example(bootstrap: str) -> None:
    [commands] = blocks("docs/protocol.md", "sh")
    done = run("bash", "-euc", commands.replace("127.0.0.1:9092", bootstrap), cwd=CHECKOUT)
    health, created, metadata, offsets, fetched = json_documents(done.text)
    assert health["state"] == "RUNNING"
    assert created["topics"][0]["error_code"] == 0  # type: ignore[index]
    assert metadata["topics"][0]["partitions"][0]["leader_id"] == 1  # type: ignore[index]
    assert offsets["topics"][0]["partitions"][0]["offset"] == 1  # type: ignore[index]
    records = fetched["responses"][0]["partitions"][0]["records"]  # type: ignore[index]
    assert b"hello, world" in base64.b64decode(records)


def test_the_client_in_fifty_lines(bootstrap: str, tmp_path: Path) -> None:
    [program] = blocks("docs/protocol.md", "python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 50
    assert set(re.findall(r"^import (.*)$", program, re.MULTILINE)) == {
        "struct, sys, time, urllib.request",
        "msgpack",
    }
    (tmp_path / "client.py").write_text(program)
    for first in (0, 3):
        done = run(sys.executable, tmp_path / "client.py", bootstrap, "greetings", cwd=tmp_path)
        assert done.text == f"{first} one\n{first + 1} two\n{first + 2} three\n"


def test_the_readmes_program(bootstrap: str, tmp_path: Path) -> None:
    run("kafka-topics", "--bootstrap-server", bootstrap, "--create", "--topic", "orders")
    [program] = blocks("README.md", "python")
    (tmp_path / "pizza.py").write_text(program.replace("127.0.0.1:9092", bootstrap))
    done = run(sys.executable, tmp_path / "pizza.py", cwd=tmp_path)
    assert done.text.splitlines() == ["written at 0 0", "0 0 b'17' b'two pizzas'"]


def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    """In a copy of the checkout, in the order of the page; only the ports are other ones."""
    copy = tmp_path / "checkout"
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=CHECKOUT).text
    for name in filter(None, files.split("\0")):
        if (CHECKOUT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((CHECKOUT / name).read_bytes())
            (copy / name).chmod((CHECKOUT / name).stat().st_mode)
    (copy / ".venv").symlink_to(Path(sys.prefix))
    environment = f"export PYTHONPATH={copy}\n"
    status = f"{copy}/scripts/kafkalite cluster status --output json --dir {copy}/.kafkalite"
    try:
        for block in blocks("README.md", "sh"):
            if "scripts/compose" in block:
                continue  # It needs a Docker engine: tests/compose runs it.
            if "zkCli.sh" in block:
                if not Path("/usr/share/zookeeper/bin/zkCli.sh").exists():
                    continue
                answer = run("bash", "-c", environment + status).json()
                block = block.replace("127.0.0.1:2181", answer["zookeeper_connect"])
            # A single line's failure must not hide behind the next line's success; `status` of a
            # cluster that lacks a broker is the one command that is meant to say so.
            for line in block.splitlines():
                done = run("bash", "-c", environment + line, cwd=copy, expect=None, timeout_s=300)
                assert done.code == 0, f"{line}\n{done.text}\n{done.err}"
                if "zkCli.sh" in line:
                    assert '"leader_epoch"' in done.text
                if "print.key=true" in line and "consumer" in line:
                    assert done.text == "17\ttwo pizzas\n"
    finally:
        subprocess.run(
            [
                "bash",
                "-c",
                f"{environment}{copy}/scripts/kafkalite cluster down --delete --dir {copy}/.kafkalite",
            ],
            check=False,
            capture_output=True,
        )
