"""Builds by the docker command, with Docker's classic builder."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.agent import BUSYBOX, AgentUnderTest

FROM = "FROM busybox:test\n"


class Project:
    """A directory with a Dockerfile, and builds of it."""

    def __init__(self, agent: AgentUnderTest, directory: Path) -> None:
        self.agent, self.directory = agent, directory

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def build(
        self, dockerfile: str | None = None, *words: str, code: int = 0, input: str | None = None
    ) -> str:
        """What docker says, on both streams, but for its words about the builder's age."""
        if dockerfile is not None:
            self.write({"Dockerfile": dockerfile})
        done = subprocess.run(
            ["docker", "build", *words, "-" if input is not None else str(self.directory)],
            env=self.environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr.partition("environment-variable.\n\n")[2]

    def run(self, image: str, *command: str) -> str:
        return self.agent.docker("run", "--rm", "--network=none", image, *command).stdout

    def clear(self) -> None:
        """All images but the base, and the cache."""
        for image in self.agent.client.images.list():
            if BUSYBOX not in image.tags:
                self.agent.client.images.remove(image.id, force=True)
        self.agent.client.api.prune_builds(all=True)

    def nothing_is_left(self) -> None:
        """Of what a build works with: soon after it has ended."""
        deadline = time.monotonic() + 30
        for name in ("lib/incoming", "lib/containers", "run/shims"):
            while os.listdir(self.agent.root / name):
                assert time.monotonic() < deadline, f"{name} is not empty"
                time.sleep(0.01)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_HOST": f"unix://{self.agent.socket}"}
