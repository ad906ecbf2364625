"""Rows about registries: pull and push of a large image against dockerd and skopeo, from and to one registry
on this machine, and the memory that they take."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

from tests.support import imagefiles
from tests.support.registries import DebianRegistry

from bench.archives import MEGABYTE, SIZE, forget_peak, make_layers, peak_of
from bench.engines import Engine, dockerd, hawse
from bench.table import Figure, Row, quantile

TIMES = 5


def possible() -> str:
    """ "" or what is missing."""
    wanted = ("docker", "dockerd", "docker-registry", "skopeo", "nsenter")
    missing = [name for name in wanted if shutil.which(name) is None]
    return f"needs {', '.join(missing)}" if missing else ""


def rows(directory: Path) -> list[Row | Figure]:
    with ExitStack() as stack:
        ours = stack.enter_context(hawse(directory / "hawse"))
        theirs = stack.enter_context(dockerd(directory / "docker"))
        registry = stack.enter_context(DebianRegistry(directory / "registry"))
        # dockerd has a loopback of its own: there the same storage is served once more.
        stack.enter_context(
            DebianRegistry(
                directory / "registry-of-docker",
                storage=registry.storage,
                port=int(registry.address.rpartition(":")[2]),
                before=("nsenter", f"--net=/proc/{theirs.pids[0]}/ns/net"),
            )
        )
        name = f"{registry.address}/bench/app:1"
        layout = write_layout(directory / "layout")
        skopeo_push(layout, name)
        measured: list[Row | Figure] = [*pulls(ours, theirs, name, directory)]
        for engine in (ours, theirs):
            engine.docker("pull", "-q", name)
        measured += pushes(ours, theirs, name, registry.storage, layout)
        return measured


def pulls(ours: Engine, theirs: Engine, name: str, directory: Path) -> Iterator[Row | Figure]:
    def pulled(engine: Engine) -> float:
        os.sync()
        begin = perf_counter()
        engine.docker("pull", "-q", name)
        seconds = perf_counter() - begin
        engine.docker("rmi", name)
        return seconds

    def copied() -> float:
        os.sync()
        begin = perf_counter()
        target = directory / "copied"
        command = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{target}:x"]
        subprocess.run(command, check=True)
        seconds = perf_counter() - begin
        shutil.rmtree(target)
        return seconds

    forget_peak(ours)
    what = f"pull of {SIZE // MEGABYTE} MB in 3 layers, registry on this machine"
    yield from compared(what, lambda: pulled(ours), lambda: pulled(theirs), copied)
    yield Figure(
        what="peak memory of the agent during these pulls", ours=peak_of(ours), unit="MB", budget=100
    )


def pushes(ours: Engine, theirs: Engine, name: str, storage: Path, layout: Path) -> Iterator[Row | Figure]:
    def pushed(engine: Engine) -> float:
        shutil.rmtree(storage / "docker")
        os.sync()
        begin = perf_counter()
        engine.docker("push", "-q", name)
        return perf_counter() - begin

    def copied() -> float:
        shutil.rmtree(storage / "docker")
        os.sync()
        begin = perf_counter()
        skopeo_push(layout, name)
        return perf_counter() - begin

    forget_peak(ours)
    what = f"push of {SIZE // MEGABYTE} MB in 3 layers, registry on this machine"
    yield from compared(what, lambda: pushed(ours), lambda: pushed(theirs), copied)
    what = "peak memory of the agent during these pushes"
    yield Figure(what=what, ours=peak_of(ours), unit="MB", budget=100)


def compared(
    what: str, ours: Callable[[], float], docker: Callable[[], float], skopeo: Callable[[], float]
) -> Iterator[Row]:
    """In turns, so that a noisy machine is unfair to all alike; skopeo only copies, and unpacks nothing."""
    taken: tuple[list[float], list[float], list[float]] = ([], [], [])
    for number in range(TIMES + 1):
        for work, figures in zip((ours, docker, skopeo), taken, strict=True):
            seconds = work()
            if number:
                figures.append(seconds * 1000)
    mine, dockers, skopeos = (quantile(figures, 0.5) for figures in taken)
    yield Row(what=what, peer="dockerd", theirs=dockers, ours=mine, unit="ms", budget=1.0)
    yield Row(what=what, peer="skopeo, which does not unpack", theirs=skopeos, ours=mine, unit="ms")


def skopeo_push(layout: Path, name: str) -> None:
    command = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:x", f"docker://{name}"]
    subprocess.run(command, check=True)


def write_layout(directory: Path) -> Path:
    """An image of this machine's files, gzipped as docker does, as an OCI layout."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> dict[str, object]:
        (blobs / imagefiles.sha256(data).partition(":")[2]).write_bytes(data)
        return {"digest": imagefiles.sha256(data), "size": len(data)}

    layers, diff_ids = [], []
    for path in make_layers(directory):
        tar = path.read_bytes()
        path.unlink()
        diff_ids.append(imagefiles.sha256(tar))
        packed = put(gzip.compress(tar, 6, mtime=0))
        layers.append({"mediaType": f"{imagefiles.LAYER}+gzip", **packed})
    config = put(imagefiles.config(diff_ids))
    document = {
        "schemaVersion": 2,
        "mediaType": imagefiles.MANIFEST,
        "config": {"mediaType": imagefiles.CONFIG, **config},
        "layers": layers,
    }
    named = {"org.opencontainers.image.ref.name": "x"}
    entry = {"mediaType": imagefiles.MANIFEST, **put(json.dumps(document).encode()), "annotations": named}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return directory
