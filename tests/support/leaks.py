"""What a test has left behind in the kernel and on disk, by comparing everything before and after.

    before = leaks.snapshot(directory)
    …
    assert not leaks.wait_for(before, directory)

Looks at mounts, links, addresses, routes, network namespaces, cgroups, nft rules, processes, files and
`net.*` sysctls, of the session and of every test host in it (found by its PID 1, so that hosts need not be
announced). Everything is a line of text and is counted: a process restarted by a test is not a leak, a
second one is. Contents of files are not compared, nor what is deeper than an agent keeps its objects.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tests.support import linux

T = TypeVar("T")
Snapshot = Counter[str]

TIMEOUT = 30.0
"""The kernel drops links and cgroups of dead namespaces in the background, and tells nobody when."""
_DEPTH = 4
_HOST_INIT = "hawse-host-init"
_UNREAPED = " (unreaped)"
_VOLATILE = re.compile(r"nf_conntrack_count|/route/|/conf/\w+/(stable_secret|temp_\w+)|rpc|fs/")
_NOT_COUNTED = re.compile(r"pytest-of-.*|__pycache__|net\d+|sudo")
"""pytest's own, sudo's records of who gave a password, and directories of test networks: the disks of
hosts are looked at from inside."""


def _mounts(pid: str) -> Iterator[tuple[str, str, str]]:
    """Type, source and mount point of each."""
    for line in Path("/proc", pid, "mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fstype, source, _ = right.split(" ", 2)
        yield fstype, source, left.split()[4]


_INHERITED = frozenset(_mounts("self"))
"""What was mounted when the tests began, by the machine for the most part."""


def snapshot(directory: Path) -> Snapshot:
    """All that is here now: `directory` is the session's."""
    found: Snapshot = Counter()
    pids = _pids()
    hosts = []
    for pid in pids:
        name, title, cgroup = _process(pid)
        if title:
            found[f"process {title}"] += 1
        if name == _HOST_INIT:
            hosts.append((cgroup.rpartition("/")[2], pid))
    found.update(f"cgroup {path}" for path in _cgroups())
    found["network namespace"] += len(_network_namespaces(pids))
    found.update(_place("self", "", (directory, "/run", "/var/lib/hawse", "/tmp")))
    for name, pid in hosts:
        found.update(_place(pid, f"{name}: ", ("/run", "/var/lib/hawse", "/tmp", "/etc/hawse")))
    return +found


def wait_for(before: Snapshot, directory: Path, timeout: float = TIMEOUT) -> list[str]:
    """What differs from `before` and stays so, a line each; nothing once all is as it was."""
    deadline = time.monotonic() + timeout
    for pause in itertools.chain((0.002, 0.005, 0.01, 0.02), itertools.repeat(0.05)):
        after = snapshot(directory)
        before = +_settled(before, after)
        if after == before:
            return []
        if time.monotonic() > deadline:
            return differences(before, after)
        time.sleep(pause)
    raise AssertionError("unreachable")


def settle(directory: Path, timeout: float = TIMEOUT) -> None:
    """Until what goes in the background is gone: for what prepares more than one test and ended something."""
    deadline, last = time.monotonic() + timeout, snapshot(directory)
    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = snapshot(directory)
        if now == last:
            return
        last = now


def _settled(before: Snapshot, after: Snapshot) -> Snapshot:
    """What was there before, less what goes without the test: processes that had ended and were still to be
    reaped, and mounts that are gone with their directory (whoever removes that, in a namespace where
    it is a plain one, takes them out of all)."""
    gone = {_line(*mount) for mount in _INHERITED if not os.path.lexists(mount[2])}
    gone |= {line for line in before if line.endswith(_UNREAPED)}
    return Counter({line: min(n, after[line]) if line in gone else n for line, n in before.items()})


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """A directory stands for what is in it."""
    found = []
    for word, more, less in (("left behind", after, before), ("gone", before, after)):
        last = "\0"
        for line in sorted((more - less).elements()):
            if not line.startswith(f"{last}/"):
                found.append(f"{word}: {line}")
                last = line
    return found


def processes() -> list[str]:
    """Titles of all that run here."""
    return [title for pid in _pids() if (title := _process(pid)[1])]


def _pids() -> list[str]:
    return [entry for entry in os.listdir("/proc") if entry.isdigit()]


def _process(pid: str) -> tuple[str, str, str]:
    """Name, title and cgroup; empty when it has ended meanwhile."""
    try:
        name = Path("/proc", pid, "comm").read_text().strip()
        title = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        state = Path("/proc", pid, "stat").read_text().rpartition(") ")[2][0]
        cgroup = Path("/proc", pid, "cgroup").read_text().partition("\n")[0]
    except (FileNotFoundError, ProcessLookupError):
        return "", "", ""
    return name, f"{name}{_UNREAPED}" if state == "Z" else title.strip() or name, cgroup


def _network_namespaces(pids: Iterable[str]) -> set[str]:
    """Those of processes, and those that an open descriptor or a mount keeps."""
    found = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended while being looked at
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile, as that of this listing
                    target = os.readlink(f"/proc/{pid}/fd/{fd}")
                    if target.startswith("net:["):
                        found.add(target)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        root = line.split(" ", 4)[3]
        if root.startswith("net:["):
            found.add(root)
    return found


def _cgroups() -> Iterator[str]:
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            yield os.path.join(directory, name)


def _place(pid: str, prefix: str, directories: Iterable[str | Path]) -> Iterator[str]:
    """What one host (`self`: the session) has, by a process of it."""
    for mount in _mounts(pid):
        yield prefix + _line(*mount)
    root = "" if pid == "self" else f"/proc/{pid}/root"
    for link in os.listdir(f"{root}/sys/class/net"):
        yield f"{prefix}link {link}"
    for directory in directories:
        for path in _files(f"{root}{directory}", _DEPTH):
            yield f"{prefix}file {path.removeprefix(root)}"
    for line in _of_network(pid):
        yield f"{prefix}{line}"


def _line(fstype: str, source: str, point: str) -> str:
    return f"mount {fstype} {source} on {point}"


def _files(directory: str, depth: int) -> Iterator[str]:
    try:
        entries = list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if _NOT_COUNTED.fullmatch(entry.name):
            continue
        yield entry.path
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, depth - 1)


def _of_network(pid: str) -> list[str]:
    if pid == "self":
        return _network()
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _in_namespace(fd, _network)
    finally:
        os.close(fd)


def _in_namespace(fd: int, function: Callable[[], T]) -> T:
    """Runs it in a thread of its own, which alone changes over."""
    results: list[T] = []

    def enter() -> None:
        linux.setns(fd, linux.CLONE_NEWNET)
        results.append(function())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return results[0]


def _network() -> list[str]:
    """Routes, addresses, rules and sysctls of this thread's network namespace."""
    found = []
    for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]:
        link, destination, gateway, _, _, _, metric, mask = line.split()[:8]
        found.append(f"route {destination}/{mask} via {gateway} dev {link} metric {metric}")
    for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines():
        address, _, prefix, _, _, link = line.split()
        if address.startswith("fe80"):
            continue  # each link gets one, some time after it has come up
        found.append(f"address {address}/{int(prefix, 16)} dev {link}")
    nft = subprocess.run(["nft", "-s", "list", "ruleset"], check=True, capture_output=True, text=True)
    table = ""
    for line in nft.stdout.splitlines():
        if line.startswith("table "):
            table = line.removesuffix(" {")
        found.append(f"nft {table}: {line.strip()}")
    for directory, _, names in os.walk("/proc/sys/net"):
        for name in names:
            path = os.path.join(directory, name)
            if not _VOLATILE.search(path):
                found.append(f"sysctl {path.removeprefix('/proc/sys/')} = {_read(path)}")
    found.append(f"hostname {os.uname().nodename}")
    return found


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace").strip()
    except OSError as error:  # write-only, or its link is just going
        return os.strerror(error.errno or 0)
