"""The house's rules about itself: who may import whom, and who may touch the world.

Time, chance, threads, sockets and files reach the rules only through the edges handed in at
construction (DESIGN section 2); that is what lets whole clusters run in one process under virtual
time. import-linter holds the packages' arrows, the walk over the syntax trees below the rest.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kafkalite.client

ROOT = Path(__file__).parents[2]
PACKAGES = ("kafkalite", "controller", "zk")

EDGES = {
    "kafkalite/edge.py": "implements Clock, Offload and chance",
    "kafkalite/log/files.py": "implements Files",
    "kafkalite/transport/": "implements Transport",
    "kafkalite/client/blocking.py": "the clients' loop in a thread of its own, for callers without asyncio",
    "kafkalite/server/connection.py": "implements Network's data path",
    "kafkalite/server/http.py": "implements Network",
    "kafkalite/server/malloc.py": "tunes this process's allocator",
    "kafkalite/server/process.py": "a broker as a process: signals, the host's name, exit codes",
    "kafkalite/server/config/broker.py": "reads server.properties, before anything runs",
    "kafkalite/server/config/jaas.py": "reads the JAAS file with ZooKeeper's credentials, likewise",
    "kafkalite/cluster/": "starts processes, waits for them, keeps its files",
    "kafkalite/compose/": "drives the Docker engine, and asks the brokers in the containers",
    "kafkalite/torture/": "breaks real processes, disks and connections, and watches the clock",
    "kafkalite/perf/": "measures: clocks, processes, the machine",
    "kafkalite/cli/": "what people run: stdin, files, the terminal",
    "zk/session.py": "kazoo's threads and sockets end there",
}
"""Modules that may touch the world (a name with a slash at its end: all below it), and why."""

WORLDLY = {
    *("time", "datetime", "random", "secrets", "uuid"),
    *("threading", "concurrent", "multiprocessing", "subprocess", "signal", "ctypes"),
    *("socket", "select", "ssl", "http", "urllib.request", "aiohttp", "httptools", "kazoo", "uvloop"),
    *("fcntl", "mmap", "tempfile", "shutil", "glob"),
}
"""Modules through which time, entropy, threads, processes, the network and files come in."""

WORLDLY_CALLS = {"to_thread", "run_in_executor", "open_connection", "start_server", "create_connection"}
"""asyncio's own doors to threads and sockets."""

FILE_METHODS = {"read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "rmdir", "touch"}
"""What `pathlib` does to files; the builtin `open` and `os` are looked for beside it."""

PURE_OS = {"PathLike", "fspath", "sep", "pathsep", "linesep", "path", "environ"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(), str(path))


def is_edge(name: str) -> bool:
    return any(name.startswith(edge) if edge.endswith("/") else name == edge for edge in EDGES)


def is_worldly(module: str) -> bool:
    return any(module == worldly or module.startswith(f"{worldly}.") for worldly in WORLDLY)


def worldly_acts(tree: ast.Module) -> list[str]:
    """What ``tree`` does that only an edge may do, each with its line."""
    found = []
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                # `import random` alone is harmless: the type random.Random is what chance is handed in as.
                found += [
                    f"{node.lineno}: import {alias.name}"
                    for alias in names
                    if is_worldly(alias.name) and alias.name != "random"
                ]
            case ast.ImportFrom(module=str(module), names=names) if is_worldly(module):
                if not (module == "random" and {alias.name for alias in names} == {"Random"}):
                    found.append(f"{node.lineno}: from {module} import …")
            case ast.Attribute(value=ast.Name(id="random"), attr=attr):
                if attr != "Random" or id(node) in called:
                    found.append(f"{node.lineno}: random.{attr}")
            case ast.Attribute(value=ast.Name(id="os"), attr=attr) if attr not in PURE_OS:
                found.append(f"{node.lineno}: os.{attr}")
            case ast.Call(func=ast.Name(id="open")):
                found.append(f"{node.lineno}: open()")
            case ast.Call(func=ast.Attribute(attr=attr)) if attr in WORLDLY_CALLS:
                found.append(f"{node.lineno}: {attr}()")
            case ast.Call(func=ast.Attribute(value=value, attr=attr)) if attr in FILE_METHODS:
                # `Files` has methods of such names too; it is the edge that was handed in.
                if "files" not in ast.unparse(value):
                    found.append(f"{node.lineno}: .{attr}()")
            case _:
                pass
    return found


def test_only_the_edges_touch_the_world() -> None:
    acts = {name: worldly_acts(tree) for name, tree in modules() if not is_edge(name)}
    assert {name: found for name, found in acts.items() if found} == {}


def test_every_edge_in_the_list_is_one() -> None:
    """An entry that nothing needs any more would be a door left open."""
    used = {
        edge
        for name, tree in modules()
        if worldly_acts(tree)
        for edge in EDGES
        if (name.startswith(edge) if edge.endswith("/") else name == edge)
    }
    assert set(EDGES) - used == set()


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "from time import monotonic",
        "import random\nrandom.random()",
        "import random\nchance = random.Random()",
        "from uuid import uuid4",
        "import os\nos.remove('x')",
        "open('x')",
        "path.read_text()",
        "import threading as t",
        "from datetime import datetime",
        "import kazoo.client",
        "asyncio.to_thread(f)",
    ],
)
def test_the_walk_finds_what_it_looks_for(line: str) -> None:
    assert worldly_acts(ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "import random\ndef f(chance: random.Random) -> None: ...",
        "import os\nos.fspath(x)",
        "self._files.unlink(x)",
    ],
)
def test_the_walk_leaves_the_harmless_alone(line: str) -> None:
    assert worldly_acts(ast.parse(line)) == []


def test_import_contracts_hold() -> None:
    run = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        # `kafkalite --help` within 250 ms: nothing heavy is imported before a command is chosen.
        (
            "kafkalite.cli.main",
            ("kazoo", "aiohttp", "asyncio", "msgspec", "kafkalite.server", "kafkalite.client"),
        ),
        # A tool that only describes needs neither end of the data, nor a group's member.
        (
            "kafkalite.cli.topics",
            (
                *(
                    "kazoo",
                    "aiohttp",
                    "javaproperties",
                    "kafkalite.server",
                    "kafkalite.protocol.record_batch",
                ),
                *("kafkalite.client.producer", "kafkalite.client.consumer", "kafkalite.client.group.member"),
            ),
        ),
    ],
)
def test_commands_start_without_what_they_do_not_need(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; sys.exit(', '.join(name for name in {heavy} if name in sys.modules) or 0)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_every_name_of_the_client_is_there() -> None:
    for name in kafkalite.client.__all__:
        assert getattr(kafkalite.client, name) is not None
    assert set(kafkalite.client.__all__) <= set(dir(kafkalite.client))


@pytest.mark.parametrize("document", ["README.md", "docs/architecture.md", "docs/protocol.md"])
def test_documents_name_files_that_are_there(document: str) -> None:
    text = (ROOT / document).read_text()
    named = re.findall(r"[`( ]((?:kafkalite|controller|zk|tests|scripts|docs)/[\w/.-]*[\w/])", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
