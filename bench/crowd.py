"""Five hundred running containers: what they cost, and how soon a daemon that comes back knows them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from time import perf_counter

from bench.containers import IMAGE, image, parent, possible
from bench.engines import Engine, hawse_daemon, pss, reset
from bench.sockets import Api
from bench.table import Figure

__all__ = ["figures", "possible"]

COUNT = 500
AT_A_TIME = 8
IDLE = 30.0


def figures(directory: Path) -> list[Figure]:
    root = directory / "hawse"
    root.mkdir()
    try:
        with hawse_daemon(root) as engine:
            engine.api().load(image(directory))
            begin = perf_counter()
            _start(engine)
            started = perf_counter() - begin
            shims = _shims(engine)
            listed = statistics.median(_timed(lambda: _list(engine.api())) for _ in range(5))
            shown = statistics.median(_timed(lambda: engine.docker("ps")) for _ in range(5))
            memory = pss(shims) / COUNT
            daemon = pss(engine.pids[:2])
            load = _load((*engine.pids[:2], *shims))
        begin = perf_counter()
        with hawse_daemon(root) as engine:
            _list(engine.api())
            back = perf_counter() - begin
    finally:
        reset(root)
    where = f"{COUNT} containers on the default bridge"
    return [
        Figure(what=f"{where}: to start them, {AT_A_TIME} at a time", ours=started, unit="s"),
        Figure(what=f"{where}: memory of each shim (PSS)", ours=memory, unit="MB", budget=2),
        Figure(what=f"{where}: memory of daemon and zygote (PSS)", ours=daemon, unit="MB"),
        Figure(what=f"{where}: to list them through the socket", ours=listed, unit="ms"),
        Figure(what=f"{where}: docker CLI `ps`", ours=shown, unit="ms"),
        Figure(
            what=f"{where}: all Hawse processes, nothing to do for {IDLE:g} s",
            ours=load,
            unit="% of a core",
            budget=0.5,
        ),
        Figure(what=f"{where}: a new daemon's start until it has listed them", ours=back, unit="s", budget=2),
    ]


def _start(engine: Engine) -> None:
    own = local()

    def start(_: int) -> None:
        if not hasattr(own, "api"):
            own.api = engine.api()
        identity = own.api.create(Image=IMAGE, Cmd=["sleep", "100000"])
        own.api.call("POST", f"/containers/{identity}/start")

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(start, range(COUNT)))


def _shims(engine: Engine) -> tuple[int, ...]:
    api = engine.api()
    pids = (api.call("GET", f"/containers/{found['Id']}/json")["State"]["Pid"] for found in _list(api))
    return tuple(parent(pid) for pid in pids)


def _list(api: Api) -> Sequence[dict[str, str]]:
    found: list[dict[str, str]] = api.call("GET", "/containers/json")
    assert len(found) == COUNT, f"{len(found)} containers run"
    return found


def _timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    begin = perf_counter()
    work()
    return (perf_counter() - begin) * 1000


def _load(pids: Sequence[int]) -> float:
    """Percent of one processor."""
    time.sleep(2.0)  # what the start has left to do
    before = _used(pids)
    time.sleep(IDLE)
    return (_used(pids) - before) / IDLE * 100


def _used(pids: Sequence[int]) -> float:
    """Seconds that all threads have run."""
    return sum(
        int((thread / "schedstat").read_text().split()[0]) / 1e9
        for pid in pids
        for thread in Path(f"/proc/{pid}/task").iterdir()
    )
