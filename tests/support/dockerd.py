"""dockerd, the peer of comparisons: Debian's, in a network namespace of its own. Needs a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

TIMEOUT = 60.0


def available() -> bool:
    return shutil.which("dockerd") is not None


class Dockerd:
    """In a network namespace of its own: its forward policy would drop the agent's traffic."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        self.socket = root / "docker.sock"
        script = 'ip link set lo up; exec dockerd "$@"'
        directories = ("--data-root", root / "data", "--exec-root", root / "exec", "--pidfile", root / "pid")
        command = ["unshare", "--net", "sh", "-c", script, "dockerd", *directories]
        with (root / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--host", f"unix://{self.socket}"], stdout=log, stderr=log
            )
        deadline = time.monotonic() + TIMEOUT
        while self.docker("version").returncode:
            assert self._process.poll() is None and time.monotonic() < deadline, (root / "log").read_text()
            time.sleep(0.1)

    @property
    def pid(self) -> int:
        return self._process.pid

    def docker(self, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}"}
        return subprocess.run(
            ["docker", *words], env=environment, input=input, capture_output=True, text=True, timeout=TIMEOUT
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)
