"""An image that is sent to several hosts, against `ssh cat` of the same bytes to all of them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from statistics import median
from time import perf_counter

from tests.support.testhost import TestNetwork

from bench.table import Row

HOSTS = 5
MEGABYTES = 300
TIMES = 2


def rows(directory: Path) -> list[Row]:
    """One layer of noise, which no compression makes smaller."""
    root = directory / "root.tar"
    with tarfile.open(root, "w") as tar:
        entry = tarfile.TarInfo("noise")
        entry.size = MEGABYTES * 1_000_000
        tar.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    with TestNetwork() as network:
        for number in range(HOSTS):
            network.host(f"h{number}")
        network.start()
        (directory / "hosts.ini").write_text(network.inventory())
        environment = {
            **os.environ,
            "HOME": str(directory),
            "HAWSE_HOME": str(directory / "hawse"),
            "LC_ALL": "C.UTF-8",
        }
        hawse = [Path(sys.executable).parent / "hawse", "-i", "hosts.ini", "-H", "all"]

        def run(*words: str | Path) -> None:
            done = subprocess.run(
                [*hawse, *words], cwd=directory, env=environment, capture_output=True, text=True
            )
            if done.returncode != 0:
                raise RuntimeError(f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}")

        run("host", "bootstrap", "all")
        run("image", "import", root, "noise:1")
        blobs = sorted(
            (directory / "hawse/images/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size
        )

        def ours() -> None:
            run("image", "send", "noise:1")

        def theirs() -> None:
            catting = []
            for host in network.hosts:
                with blobs[-1].open("rb") as file:
                    command = ["ssh", *host.ssh_args, "cat > /root/noise"]
                    catting.append(subprocess.Popen(command, stdin=file))
            if any(process.wait() for process in catting):
                raise RuntimeError("ssh cat failed")

        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(TIMES):
            for work, figures in zip((ours, theirs), taken, strict=True):
                begin = perf_counter()
                work()
                figures.append((perf_counter() - begin) * 1000)
            run("rmi", "noise:1")
    shutil.rmtree(directory / "hawse")
    return [
        Row(
            what=f"{MEGABYTES} MB image to {HOSTS} hosts",
            peer="ssh cat of the same bytes, all hosts at once",
            theirs=median(taken[1]),
            ours=median(taken[0]),
            unit="ms",
            budget=1.5,
        )
    ]


def possible() -> str:
    """Why this row cannot be measured here, or nothing."""
    return "" if shutil.which("ssh") else "openssh-client is not installed"
