"""Rows about archives: load, save, commit of a large image against dockerd, and the memory that it takes."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

from tests.support import imagefiles

from bench.engines import Engine, dockerd, hawse
from bench.table import Figure, Row, quantile

IMAGE = "bench-archive:latest"
MEGABYTE = 1 << 20
SIZE = 300 * MEGABYTE
TIMES = 3
_SOURCES = ("/usr/share", "/usr/lib/python3", "/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/bin")


def possible() -> str:
    """ "" or what is missing."""
    missing = [name for name in ("docker", "dockerd") if shutil.which(name) is None]
    return f"needs {', '.join(missing)}" if missing else ""


def rows(directory: Path) -> list[Row | Figure]:
    layers = make_layers(directory)
    plain, packed = directory / "plain.tar", directory / "packed.tar"
    for archive, compressed in ((plain, False), (packed, True)):
        write_archive(archive, layers, compressed=compressed)
    measured: list[Row | Figure] = []
    with hawse(directory / "hawse") as ours, dockerd(directory / "docker") as theirs:
        for what, archive in (("layers uncompressed", plain), ("layers gzipped", packed)):
            work = functools.partial(load, archive=archive)
            measured.append(both(f"load of {SIZE // MEGABYTE} MB, {what}", ours, theirs, work))
        for engine in (ours, theirs):
            engine.docker("load", "-q", "-i", str(plain))
        measured.append(both(f"save of {SIZE // MEGABYTE} MB", ours, theirs, save))
        work = functools.partial(again, archive=plain)
        measured.append(both("load of what is there already", ours, theirs, work))
        peak = 0.0
        for archive in (plain, packed):
            ours.docker("rmi", "-f", IMAGE)
            forget_peak(ours)
            load(ours, archive)
            peak = max(peak, peak_of(ours))
        what = f"peak memory of the agent during a load of {SIZE // MEGABYTE} MB"
        measured.append(Figure(what=what, ours=peak, unit="MB", budget=100))
    return measured


def both(what: str, ours: Engine, theirs: Engine, work: Callable[[Engine], float]) -> Row:
    taken: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(TIMES + 1):
        for name, engine in (("ours", ours), ("theirs", theirs)):
            seconds = work(engine)
            if number:
                taken[name].append(seconds * 1000)
    mine, other = (quantile(taken[name], 0.5) for name in ("ours", "theirs"))
    return Row(what=what, peer="dockerd", theirs=other, ours=mine, unit="ms", budget=1.0)


def load(engine: Engine, archive: Path) -> float:
    """Seconds, of an image that is not there."""
    seconds = again(engine, archive)
    engine.docker("rmi", IMAGE)
    return seconds


def again(engine: Engine, archive: Path) -> float:
    begin = perf_counter()
    engine.docker("load", "-q", "-i", str(archive))
    return perf_counter() - begin


def save(engine: Engine) -> float:
    begin = perf_counter()
    engine.docker("save", "-o", str(engine.root / "saved.tar"), IMAGE)
    seconds = perf_counter() - begin
    (engine.root / "saved.tar").unlink()
    return seconds


def make_layers(directory: Path) -> list[Path]:
    """Of this machine's files: many small ones, some large ones."""
    found = []
    files = _files()
    parts = ((SIZE // 10, _small), (SIZE // 3, _any), (SIZE * 17 // 30, _any))
    for number, (size, wanted) in enumerate(parts):
        path = directory / f"layer-{number}.tar"
        left = size
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            for file in files:
                if wanted(file):
                    tar.add(file, str(file).lstrip("/"), recursive=False)
                    left -= file.stat().st_size
                    if left <= 0:
                        break
        found.append(path)
    return found


def _files() -> Iterator[Path]:
    for source in _SOURCES:
        for root, _, names in os.walk(source):
            for name in sorted(names):
                path = Path(root, name)
                if path.is_file() and not path.is_symlink():
                    yield path


def _small(path: Path) -> bool:
    return path.stat().st_size < 64 * 1024


def _any(path: Path) -> bool:
    return True


def write_archive(path: Path, layers: list[Path], *, compressed: bool) -> None:
    """Not `docker_archive`: there the layers would be compressed ones of other diff_ids."""
    contents = [layer.read_bytes() for layer in layers]
    described = []
    with tarfile.open(path, "w") as tar:

        def add(name: str, data: bytes) -> None:
            info, content = imagefiles.entry(name, data)
            tar.addfile(info, io.BytesIO(content))

        for number, data in enumerate(contents):
            described.append(f"{number:064x}/layer.tar")
            add(described[-1], gzip.compress(data, 6) if compressed else data)
        add("config.json", imagefiles.config([imagefiles.sha256(data) for data in contents], Cmd=["sh"]))
        manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": described}]
        add("manifest.json", json.dumps(manifest).encode())


def forget_peak(engine: Engine) -> None:
    Path(f"/proc/{engine.pids[0]}/clear_refs").write_text("5")


def peak_of(engine: Engine) -> float:
    """Megabytes of the daemon's process."""
    for line in Path(f"/proc/{engine.pids[0]}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM")
