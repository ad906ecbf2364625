"""Rows about one host: start, exec, memory, against runc and dockerd."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

from tests.support import busybox, imagefiles

from bench.engines import LIMITED, Engine, dockerd, hawse, pss, runc_bundle
from bench.table import Row, paired, quantile

IMAGE = "bench:latest"
TIMES = 15


def rows(directory: Path) -> list[Row]:
    with hawse(directory / "hawse") as ours, dockerd(directory / "docker") as theirs:
        archive = image(directory)
        for engine in (ours, theirs):
            engine.api().load(archive)
        bundle = runc_bundle(theirs, IMAGE, directory / "runc")
        try:
            return [
                *starts(ours, theirs, bundle),
                *several(ours, theirs),
                *memory(ours, theirs),
            ]
        finally:
            subprocess.run(["umount", bundle / "rootfs"], check=True)


def image(directory: Path) -> bytes:
    layer = busybox.make_layer(directory / "layer")
    tar = subprocess.run(["tar", "-C", layer, "-c", "."], check=True, capture_output=True).stdout
    config = imagefiles.config([imagefiles.sha256(tar)], Cmd=["sh"], Env=["PATH=/bin"])
    return imagefiles.docker_archive([(config, [tar], [IMAGE])])


def starts(ours: Engine, theirs: Engine, bundle: Path) -> list[Row]:
    rows = []
    api, docker_api = ours.api(), theirs.api()

    def runc() -> None:
        root = bundle / "state"
        subprocess.run(["runc", "--root", root, "run", "--bundle", bundle, "b"], check=True)

    mine, other = paired(
        lambda: api.run_to_the_end(Image=IMAGE, Cmd=["true"], HostConfig=LIMITED), runc, TIMES
    )
    rows.append(
        Row(
            what="create, start, wait, remove of `true` through the socket, no network",
            peer="runc run, same configuration",
            theirs=other,
            ours=mine,
            unit="ms",
            budget=1.0,
        )
    )
    mine, other = paired(
        lambda: ours.docker("run", "--rm", IMAGE, "true"),
        lambda: theirs.docker("run", "--rm", IMAGE, "true"),
        TIMES,
    )
    rows.append(
        Row(
            what="docker CLI `run --rm`, default bridge",
            peer="dockerd",
            theirs=other,
            ours=mine,
            unit="ms",
            budget=0.25,
        )
    )

    started: dict[str, list[str]] = {"ours": [], "theirs": []}

    def published(which: str) -> None:
        client = api if which == "ours" else docker_api
        identity = client.create(
            Image=IMAGE,
            Cmd=["sleep", "1000"],
            ExposedPorts={"80/tcp": {}},
            HostConfig={"PortBindings": {"80/tcp": [{"HostPort": ""}]}},
        )
        client.call("POST", f"/containers/{identity}/start")
        started[which].append(identity)

    mine, other = paired(lambda: published("ours"), lambda: published("theirs"), TIMES)
    rows.append(
        Row(
            what="create, start with a published port, through the socket",
            peer="dockerd",
            theirs=other,
            ours=mine,
            unit="ms",
            budget=0.125,
        )
    )
    mine, other = paired(
        lambda: ours.docker("exec", started["ours"][0], "true"),
        lambda: theirs.docker("exec", started["theirs"][0], "true"),
        TIMES,
    )
    rows.append(
        Row(
            what="docker CLI `exec` of `true`",
            peer="dockerd",
            theirs=other,
            ours=mine,
            unit="ms",
            budget=0.67,
        )
    )
    for client, which in ((api, "ours"), (docker_api, "theirs")):
        for identity in started[which]:
            client.call("DELETE", f"/containers/{identity}?force=1")
    mine, other = paired(lambda: forty(ours), lambda: forty(theirs), 1)
    rows.append(
        Row(
            what="40 docker CLI `run -d`, 8 at a time",
            peer="dockerd",
            theirs=other,
            ours=mine,
            unit="ms",
            budget=0.2,
        )
    )
    return rows


def forty(engine: Engine) -> None:
    names = [f"forty-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: engine.docker("run", "-d", "--name", name, IMAGE, "sleep", "999"), names))
    engine.docker("rm", "-f", *names)


def several(ours: Engine, theirs: Engine) -> list[Row]:
    """What one `run -d` takes while others are under way."""
    rows = []
    for at_a_time, count in ((1, 20), (8, 48), (32, 96)):
        taken = {engine.name: _runs(engine, at_a_time, count) for engine in (ours, theirs)}
        for name, part in (("p50", 0.5), ("p99", 0.99)):
            rows.append(
                Row(
                    what=f"one docker CLI `run -d` of {count}, {at_a_time} at a time: {name}",
                    peer=theirs.name,
                    theirs=quantile(taken[theirs.name], part),
                    ours=quantile(taken[ours.name], part),
                    unit="ms",
                )
            )
    return rows


def _runs(engine: Engine, at_a_time: int, count: int) -> list[float]:
    def run(name: str) -> float:
        begin = perf_counter()
        engine.docker("run", "-d", "--name", name, IMAGE, "sleep", "999")
        return (perf_counter() - begin) * 1000

    names = [f"several-{number}" for number in range(count)]
    with ThreadPoolExecutor(at_a_time) as pool:
        taken = list(pool.map(run, names))
    engine.docker("rm", "-f", *names)
    return taken


def memory(ours: Engine, theirs: Engine) -> list[Row]:
    idle = {engine.name: pss(engine.pids) for engine in (ours, theirs)}
    each = {engine.name: _per_container(engine) for engine in (ours, theirs)}
    return [
        Row(
            what="memory of the idle engine (PSS)",
            peer="dockerd and containerd",
            theirs=idle[theirs.name],
            ours=idle[ours.name],
            unit="MB",
            budget=0.4,
        ),
        Row(
            what="memory per running container, beside its own processes (PSS, of 20)",
            peer="containerd-shim",
            theirs=each[theirs.name],
            ours=each[ours.name],
            unit="MB",
            budget=0.77,
        ),
    ]


def _per_container(engine: Engine) -> float:
    api = engine.api()
    count = 20
    ids = []
    for _ in range(count):
        identity = api.create(Image=IMAGE, Cmd=["sleep", "1000"], HostConfig=LIMITED)
        api.call("POST", f"/containers/{identity}/start")
        ids.append(identity)
    shims = tuple(
        {parent(api.call("GET", f"/containers/{identity}/json")["State"]["Pid"]) for identity in ids}
    )
    figure = pss(shims) / count
    for identity in ids:
        api.call("DELETE", f"/containers/{identity}?force=1")
    return figure


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def possible() -> str:
    """Why these rows cannot be measured here, or nothing."""
    for program in ("runc", "dockerd", "docker"):
        if not any((Path(d) / program).exists() for d in os.environ["PATH"].split(":")):
            return f"{program} is not installed"
    return ""
