"""A daemon of the agent, as a process of its own, and Docker's clients for its socket.

Refuses nothing that the daemon does not refuse; leaves nothing once closed: `reset --volumes` must remove
all that the instance has made, which the tests' leak check proves.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import docker
from docker.errors import NotFound
from tests.support import busybox

BUSYBOX = "busybox:test"
_KEPT_NETWORKS = frozenset({"bridge", "host", "none"})


class AgentUnderTest:
    """One instance; use it as a context manager, or `close` it."""

    def __init__(
        self,
        root: Path,
        *,
        environment: Mapping[str, str] | None = None,
        program: tuple[str, ...] = ("-m", "hawse_agent"),
    ) -> None:
        """`environment` is added to ours; `program` is what Python runs as the agent."""
        self.root = root
        self._environment = {**os.environ, **(environment or {})}
        self._program = program
        self.socket = root / "run/agent.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.client = docker.DockerClient(f"unix://{self.socket}", timeout=60)

    def __enter__(self) -> AgentUnderTest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when it serves: it closes the pipe that it was given."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with open(reader, "rb") as ready:
            try:
                self._process = subprocess.Popen(
                    [*self._command("daemon"), "--ready-fd", str(writer)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(writer,),
                    env=self._environment,
                )
            finally:
                os.close(writer)
            if not ready.read(1):
                raise RuntimeError(f"the daemon ended with {self._process.wait()}")

    def kill(self) -> None:
        """SIGKILL to the daemon; its containers run on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def ended(self, timeout: float) -> bool:
        """Whether the daemon ends by itself within that time."""
        assert self._process is not None
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def restart(self) -> None:
        if self.running:
            self.stop()
        self.start()

    def docker(
        self, *words: str, input: str = "", code: int | None = 0, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Docker's own command line, if this machine has it; `code` None allows every exit code."""
        done = subprocess.run(
            ["docker", "-H", f"unix://{self.socket}", *words],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert code is None or done.returncode == code, f"docker {words}: {done.stdout}{done.stderr}"
        return done

    def load_busybox(self) -> None:
        """Makes `BUSYBOX` known to it."""
        with tempfile.TemporaryDirectory() as directory:
            layer = busybox.make_layer(Path(directory, "layer"))
            archive = Path(directory, "root.tar")
            with tarfile.open(archive, "w") as tar:
                tar.add(layer, ".")
            name, _, tag = BUSYBOX.partition(":")
            self.client.api.import_image(str(archive), repository=name, tag=tag, changes=['CMD ["sh"]'])

    def clear(self) -> None:
        """Removes what tests have made: all but the images."""
        for container in self.client.containers.list(all=True):
            try:
                container.remove(force=True, v=True)
            except NotFound:
                continue  # one that removes itself
        for network in self.client.networks.list():
            if network.name not in _KEPT_NETWORKS:
                network.remove()
        for volume in self.client.volumes.list():
            volume.remove()

    def close(self) -> None:
        """Ends the daemon and removes the instance with all that it has."""
        self.client.close()
        process, self._process = self._process, None
        if process is not None:
            command = [*self._command("reset"), "--volumes"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            process.wait(10)

    def _command(self, verb: str) -> list[str]:
        return [sys.executable, *self._program, verb, "--root", str(self.root)]

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)


_numbers = itertools.count(1)


def new_root(session: Path) -> Path:
    """A short path below the session's directory: addresses of unix sockets have 108 bytes."""
    return session / f"a{next(_numbers)}"
