"""Ports: the preferred ones where they are free, else the next ones, and nobody's twice."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kafkalite.cluster import ports
from kafkalite.cluster.layout import CLUSTER_FILE, BadLayout

NONE = range(0)


@pytest.fixture(autouse=True)
def _own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "registry_path", lambda: tmp_path / "registry.json")


def test_preferred_ports_are_taken_where_they_are_free() -> None:
    assert ports.choose({"a": (9092,), "b": (9093,)}, is_free=lambda _: True, ephemeral=NONE) == {
        "a": (9092,),
        "b": (9093,),
    }


def test_a_taken_port_moves_everyone_behind_it() -> None:
    chosen = ports.choose({"a": (9092,), "b": (9093,)}, is_free=lambda p: p != 9092, ephemeral=NONE)
    assert chosen == {"a": (9093,), "b": (9094,)}


def test_ports_that_the_kernel_hands_out_are_leapt_over() -> None:
    chosen = ports.choose({"a": (99,)}, is_free=lambda p: p >= 100, ephemeral=range(100, 200))
    assert chosen == {"a": (200,)}


def test_the_end_of_the_port_space_is_an_error() -> None:
    with pytest.raises(BadLayout, match="no free ports"):
        ports.choose({"a": (65_535,)}, is_free=lambda _: False, ephemeral=NONE)


def test_a_listener_takes_its_port() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not ports.can_bind(port)
    assert ports.can_bind(port)


def reserve(directory: Path) -> int:
    """Lay out a cluster of one process in ``directory``; return its port."""
    with ports.reserved(directory, {"broker-1": (19_092,)}) as chosen:
        directory.mkdir()
        (directory / CLUSTER_FILE).touch()
    return chosen["broker-1"][0]


def test_a_stopped_clusters_ports_stay_its_own(tmp_path: Path) -> None:
    first, second = reserve(tmp_path / "one"), reserve(tmp_path / "two")
    assert first != second


def test_the_ports_of_a_removed_cluster_are_free_again(tmp_path: Path) -> None:
    first = reserve(tmp_path / "one")
    (tmp_path / "one" / CLUSTER_FILE).unlink()
    assert reserve(tmp_path / "two") == first


def test_released_ports_are_free_again(tmp_path: Path) -> None:
    first = reserve(tmp_path / "one")
    ports.release(tmp_path / "one")
    assert reserve(tmp_path / "two") == first


def test_a_damaged_registry_costs_only_its_hints(tmp_path: Path) -> None:
    (tmp_path / "registry.json").write_text("not json")
    assert reserve(tmp_path / "one") >= 19_092
