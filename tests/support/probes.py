"""Attacks from inside: containers whose image is busybox and whose Python is the host's own, lent by a bind.

What they try is in `insider.py`, which is mounted into them.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.support import busybox
from tests.support.agent import AgentUnderTest

IMAGE = "probe:test"
PYTHON = "/usr/bin/python3"
INSIDER = Path(__file__).with_name("insider.py")
_USR_LINKS = ("lib", "lib32", "lib64", "libx32")
_VOLUMES = {
    "/usr": {"bind": "/usr", "mode": "ro"},
    str(INSIDER): {"bind": "/insider.py", "mode": "ro"},
}


def available() -> bool:
    return busybox.available() and Path(PYTHON).exists() and Path("/lib").is_symlink()


def load(agent: AgentUnderTest) -> None:
    """Makes `IMAGE` known to it."""
    with tempfile.TemporaryDirectory() as directory:
        layer = busybox.make_layer(Path(directory, "layer"))
        for name in _USR_LINKS:
            (layer / name).symlink_to(f"usr/{name}")
        archive = Path(directory, "root.tar")
        with tarfile.open(archive, "w") as tar:
            tar.add(layer, ".")
        name, _, tag = IMAGE.partition(":")
        agent.client.api.import_image(str(archive), repository=name, tag=tag)


def arguments(*probes: str) -> list[str]:
    return [PYTHON, "-IS", "/insider.py", *probes]


def options(**more: Any) -> dict[str, Any]:
    """For docker-py's `run` and `create`."""
    return {**more, "volumes": {**_VOLUMES, **more.get("volumes", {})}}


def attack(agent: AgentUnderTest, *probes: str, **more: Any) -> dict[str, Any]:
    """What came of each probe, in a container of its own."""
    output = agent.client.containers.run(IMAGE, arguments(*probes), remove=True, **options(**more))
    return dict(json.loads(output))
