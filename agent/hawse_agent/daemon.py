"""The daemon of one instance: lock, zygote, engine, socket, in this order.

The zygote is forked first, while there is one thread and little memory. SIGTERM ends the daemon and leaves
the containers alone, unless the whole host goes down; the next one takes them up again.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import resource
import signal
import socket
import time
from pathlib import Path

from hawse_agent import __version__, launch
from hawse_agent.cgroups import find_base, leave_session
from hawse_agent.errors import Conflict
from hawse_agent.linux import privilege
from hawse_agent.locations import LEAVING, MAX_LOG
from hawse_agent.network import dns
from hawse_agent.paths import Paths, paths_for
from hawse_agent.runtime import preload
from hawse_agent.supervise import shim
from hawse_agent.supervise.zygote import Zygote

DESCRIPTORS = 65536
LOG_LOOK = 600.0
"""Seconds between two looks at how long daemon.log has become."""
LEAVING_PATIENCE = 90.0
"""Seconds for a daemon that is leaving: it gives its clients a minute at most."""


def main(root: str, socket_path: str, ready_fd: int) -> int:
    """Serves until SIGTERM or a request to stop. Raises Conflict when the instance has a daemon."""
    paths = paths_for(Path(root) if root else None, Path(socket_path) if socket_path else None)
    command = launch.command("zygote")
    os.umask(0o022)
    for directory in (paths.lib, paths.run):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # What containers leave in their files, set-uid programs too, is for root alone (CVE-2021-41091).
    paths.lib.chmod(0o700)
    lock = take_lock(paths)
    os.chdir("/")
    if "NOTIFY_SOCKET" not in os.environ:  # else systemd has given us a cgroup
        leave_session(find_base(paths))
    preload()
    shim.rehearse()
    held = (lock, ready_fd) if ready_fd >= 0 else (lock,)
    zygote = Zygote.fork(command, shim.main, dns.serve, close=held)
    try:
        _serve(paths, zygote, lock, ready_fd)
    finally:
        zygote.close()
    return 0


def take_lock(paths: Paths) -> int:
    """The instance's lock, held until the process ends. Waits for a daemon that is leaving; raises Conflict
    that names one that is not."""
    fd = os.open(paths.daemon_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder, *rest = os.pread(fd, 256, 0).decode(errors="replace").split() or ["unknown"]
        if rest != [LEAVING]:
            os.close(fd)
            raise Conflict(
                f"a daemon of this instance runs already (process {holder}, {paths.run})",
                hint="--root DIR makes an instance of its own",
            ) from None
        _await_lock(fd, holder)
    _describe(fd, __version__, launch.bundle())
    return fd


def _await_lock(fd: int, holder: str) -> None:
    """Raises Conflict when the daemon that is leaving does not leave."""
    deadline = time.monotonic() + LEAVING_PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise Conflict(
                    f"the daemon before (process {holder}) is leaving, and has not left for "
                    f"{LEAVING_PATIENCE:g} s",
                    hint=f"look what it waits for, or end it: kill -9 {holder}; containers stay",
                ) from None
        time.sleep(0.02)


def _describe(lock: int, *words: str) -> None:
    """Readers must never see half of it, so it is one write, and only then cut."""
    text = " ".join((str(os.getpid()), *words)).rstrip().encode() + b"\n"
    os.pwrite(lock, text, 0)
    os.ftruncate(lock, len(text))


def _serve(paths: Paths, zygote: Zygote, lock: int, ready_fd: int) -> None:
    # Imported now: the zygote must not have them.

    from hawse_agent import hostdown
    from hawse_agent.api import docker, hawse
    from hawse_agent.api.audit import Audit
    from hawse_agent.api.router import Router
    from hawse_agent.api.server import Server
    from hawse_agent.engine import settings
    from hawse_agent.engine.engine import Engine

    privilege.set_title(f"hawse-agent: daemon {paths.instance}".rstrip())
    _raise_limit()
    engine = Engine(paths, zygote, settings=settings.read(paths.config), bundle=launch.bundle())
    router = Router()
    server = Server(paths.socket, router, Audit(paths.audit), version=__version__)
    docker.routes(router, engine)
    hawse.routes(router, engine, server.stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    engine.recover()
    _spare_the_collector()
    server.listen()
    _ready(ready_fd)
    try:
        server.serve()
    finally:
        _describe(lock, LEAVING)
        server.close()
        engine.close()
        if hostdown.is_going_down():
            hostdown.stop_containers(paths)


def _spare_the_collector() -> None:
    """What is there now stays: the garbage collector, which a start would else wake a dozen times, does not
    look at it, and looks at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _keep_log_short(path: Path) -> None:
    while True:
        with contextlib.suppress(OSError):  # a full disk: then it is not written to, either
            rotate_log(path)
        time.sleep(LOG_LOOK)


def rotate_log(path: Path) -> None:
    """Begin daemon.log anew once it is long; nothing when our words go elsewhere. Zygote and shims, which say
    little, go on with the old one."""
    if not path.exists() or not os.path.samestat(path.stat(), os.fstat(2)) or path.stat().st_size < MAX_LOG:
        return
    path.rename(path.with_suffix(".log.1"))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for number in (1, 2):
        os.dup2(fd, number)
    os.close(fd)


def _raise_limit() -> None:
    """Each client and each container takes descriptors; shims keep the limit that we were started with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(DESCRIPTORS, hard)), hard))


def _ready(ready_fd: int) -> None:
    """Tell whoever waits: the starter by a pipe, systemd by sd_notify(3)."""
    if ready_fd >= 0:
        with contextlib.suppress(BrokenPipeError):
            os.write(ready_fd, b"1")
        os.close(ready_fd)
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.send(b"READY=1")
