"""Reading and writing cgroup files, one system call a time.

A buffered file would report the kernel's refusal when it is closed, or not at all.
"""

from __future__ import annotations

import errno
import os
import time

REMOVE_TIMEOUT = 5.0


def write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {text!r} to {path}: {os.strerror(error.errno or 0)}") from error
    finally:
        os.close(fd)


def read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, 65536):
            pieces.append(piece)
    finally:
        os.close(fd)
    return b"".join(pieces).decode().rstrip("\n")


def read_number(path: str) -> int:
    """`max` and a missing file are 0."""
    try:
        text = read(path)
    except FileNotFoundError:
        return 0
    return 0 if text == "max" else int(text)


def read_pairs(path: str) -> dict[str, int]:
    """Lines of `key number`; empty when there is no such file."""
    try:
        lines = read(path).splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0].rstrip(":"): int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def pids_here(directory: str) -> list[int]:
    return [int(line) for line in read(f"{directory}/cgroup.procs").split()]


def pids(directory: str) -> list[int]:
    """Of the directory and all below it."""
    found: list[int] = []
    for path, _, _ in os.walk(directory):
        try:
            found += pids_here(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):  # just removed; threaded
                raise
    return found


def remove(directory: str) -> None:
    """Remove it with all below it. Its last processes may still be on their way out: no file tells when
    they are gone (v1 has none), so EBUSY is tried again for a while."""
    deadline = time.monotonic() + REMOVE_TIMEOUT
    delay = 0.0005
    while True:
        try:
            os.rmdir(directory)  # nearly always empty: no need to look for children first
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise
        with os.scandir(directory) as entries:
            children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for child in children:
            remove(child)
        if not children:
            time.sleep(delay)
            delay = min(delay * 2, 0.05)
