"""Which local cluster a command means when it is not told."""

from __future__ import annotations

from pathlib import Path

import kafkalite
from kafkalite.cluster.layout import CLUSTER_FILE

DEFAULT_NAME = ".kafkalite"


def checkout() -> Path | None:
    """The checkout that this package is run from, or None where it is installed without one."""
    assert kafkalite.__file__ is not None
    root = Path(kafkalite.__file__).parents[1]
    return root if (root / "scripts" / "kafkalite").exists() else None


def cluster_directory(given: Path | None) -> Path:
    """``given``; else `./.kafkalite`, unless only the checkout has one (quickstart's)."""
    if given is not None:
        return given
    here = Path(DEFAULT_NAME)
    root = checkout()
    if (
        root is not None
        and not (here / CLUSTER_FILE).exists()
        and (root / DEFAULT_NAME / CLUSTER_FILE).exists()
    ):
        return root / DEFAULT_NAME
    return here


def overrides_from(pairs: tuple[str, ...]) -> dict[str, str]:
    """Take `k=v` arguments apart. Raises ValueError naming the one without `=`."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{pair!r} is not of the form name=value")
        found[name.strip()] = value.strip()
    return found
