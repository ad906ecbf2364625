"""The engines that are compared, each started in the bench's own session: hawse-agent, dockerd, runc."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.sockets import Api

DOCKERD_TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class Engine:
    """`pids` are those of the idle engine: daemons without containers."""

    name: str
    socket: Path
    pids: tuple[int, ...]
    root: Path

    def api(self) -> Api:
        return Api(self.socket)

    def docker(self, *args: str) -> None:
        subprocess.run(
            ["docker", *args],
            env={**os.environ, "DOCKER_HOST": f"unix://{self.socket}"},
            check=True,
            stdout=subprocess.DEVNULL,
        )


_AGENT = [sys.executable, "-m", "hawse_agent"]


@contextlib.contextmanager
def hawse(root: Path) -> Iterator[Engine]:
    root.mkdir()
    try:
        with hawse_daemon(root) as engine:
            yield engine
    finally:
        reset(root)


def reset(root: Path) -> None:
    subprocess.run([*_AGENT, "reset", "--root", root, "--volumes"], check=True)


@contextlib.contextmanager
def hawse_daemon(root: Path) -> Iterator[Engine]:
    """One daemon; what it has made stays."""
    ready, signal_ready = os.pipe()
    socket = root / "agent.sock"
    with (root / "log").open("ab") as log:
        process = subprocess.Popen(
            [*_AGENT, "daemon", "--root", root, "--socket", socket, "--ready-fd", str(signal_ready)],
            pass_fds=(signal_ready,),
            stderr=log,
        )
    os.close(signal_ready)
    try:
        if not os.read(ready, 1):
            raise RuntimeError((root / "log").read_text())
        yield Engine(name="Hawse", socket=socket, pids=family(process.pid), root=root)
    finally:
        os.close(ready)
        process.terminate()
        process.wait()


@contextlib.contextmanager
def dockerd(root: Path) -> Iterator[Engine]:
    """In a network namespace of its own: its forward policy would drop other engines' traffic."""
    root.mkdir()
    socket = root / "docker.sock"
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "unshare",
                "--net",
                "sh",
                "-c",
                'ip link set lo up; exec dockerd "$@"',
                "dockerd",
                "--data-root",
                root / "data",
                "--exec-root",
                root / "exec",
                "--pidfile",
                root / "pid",
                "--host",
                f"unix://{socket}",
                "--storage-driver",
                "overlay2",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(socket, process, root / "log")
        yield Engine(name="dockerd", socket=socket, pids=family(process.pid), root=root)
    finally:
        process.terminate()
        process.wait()


def _wait_for(socket: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + DOCKERD_TIMEOUT
    while True:
        try:
            Api(socket).call("GET", "/version")
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd does not start:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.1)


def runc_bundle(docker: Engine, image: str, directory: Path) -> Path:
    """A bundle with the very configuration that dockerd gives to runc for `true` without a network, on an
    overlay of the same layer."""
    api = docker.api()
    identity = api.create(Image=image, Cmd=["sleep", "100"], HostConfig=LIMITED)
    api.call("POST", f"/containers/{identity}/start")
    try:
        found = list(docker.root.glob(f"exec/**/{identity}/config.json"))
        config: dict[str, Any] = json.loads(found[0].read_text())
        layers = api.call("GET", f"/containers/{identity}/json")["GraphDriver"]["Data"]
        (directory / "rootfs").mkdir(parents=True)
        for name in ("upper", "work"):
            (directory / name).mkdir()
        lower = layers["LowerDir"].split(":")[-1]
        shutil.copytree(lower, directory / "lower", symlinks=True)
    finally:
        api.call("DELETE", f"/containers/{identity}?force=1")
    config["process"]["args"] = ["true"]
    config["root"] = {"path": str(directory / "rootfs")}
    config.pop("hooks", None)
    config["mounts"] = [m for m in config["mounts"] if not m["source"].startswith(str(docker.root))]
    config["linux"]["namespaces"] = [{"type": n["type"]} for n in config["linux"]["namespaces"]]
    config["linux"]["cgroupsPath"] = "/hawse-bench-runc"
    (directory / "config.json").write_text(json.dumps(config))
    subprocess.run(
        [
            "mount",
            "-t",
            "overlay",
            "overlay",
            "-o",
            f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work",
            directory / "rootfs",
        ],
        check=True,
    )
    return directory


LIMITED = {"NetworkMode": "none", "Memory": 64 << 20, "NanoCpus": 10**9, "PidsLimit": 100}


def family(pid: int) -> tuple[int, ...]:
    """The process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return tuple(found)


def pss(pids: tuple[int, ...]) -> float:
    """Megabytes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024
