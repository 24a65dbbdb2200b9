"""Each command that the documents show for containers is typed here, in their order."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from kafkalite.compose.project import compose_command
from tests.cluster.commands import CHECKOUT

from .conftest import ComposeCluster


def commands(document: str, heading: str) -> list[str]:
    """The lines of the `sh` blocks from ``heading`` to the next one of its level."""
    level = heading.split()[0]
    text = (CHECKOUT / document).read_text()
    section = text.split(f"\n{heading}\n", 1)[1]
    section = re.split(rf"\n{level} ", section, maxsplit=1)[0]
    return [
        line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("document", "heading", "least"),
    [
        pytest.param("docs/operations.md", "## A cluster in containers", 18, marks=pytest.mark.soak),
        ("README.md", "## If you have Docker", 4),
    ],
)
def test_every_command_does_what_it_should(
    project: ComposeCluster, document: str, heading: str, least: int
) -> None:
    shown = commands(document, heading)
    assert len(shown) >= least
    project.compose("down", "--volumes")
    compose = " ".join(compose_command())
    for line in shown:
        typed = project.in_words(line).replace("docker compose", compose)
        done = subprocess.run(
            ["bash", "-c", typed],
            cwd=CHECKOUT,
            env={**os.environ, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, f"{typed}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        if "consumer" in line:
            assert done.stdout.strip(), f"{typed} printed nothing"
