"""Run a program as a user and keep what it printed. No shell comes in between."""

from __future__ import annotations

import os
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hawse_agent.errors import TaskFailed
from hawse_agent.provision.users import UMASK, Account

OUTPUT_LIMIT = 16 << 20
"""Bytes of each stream that are kept; the rest is read and dropped, and the result says so."""

NO_SUCH_PROGRAM = 127
NOT_EXECUTABLE = 126


@dataclass(frozen=True, kw_only=True)
class Completed:
    rc: int
    """Exit status; -N when signal N ended it."""
    stdout: bytes
    stderr: bytes
    started: float
    ended: float
    dropped: int = 0
    """Bytes of output beyond the limit."""


_LOOK, _GRACE = 0.5, 5.0
"""Seconds after which it is looked again whether a program is cancelled, and that it has to end then."""
_LEFT = 64
"""Reads at the end, a pipe's worth; whoever goes on writing in the background is not read to its end."""


class _Stream:
    def __init__(self) -> None:
        self.kept = bytearray()
        self.dropped = 0

    def add(self, data: bytes) -> None:
        room = OUTPUT_LIMIT - len(self.kept)
        self.kept += data[:room]
        self.dropped += max(0, len(data) - room)


def run(
    argv: Sequence[str],
    user: Account,
    *,
    directory: int | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Completed:
    """Wait until the program itself ends; what it left in the background goes on and is not waited for.

    `directory` is an open one. Raises TaskFailed when the program cannot be started, runs longer than
    `timeout`, or is `cancelled`: then its process group is ended, by SIGTERM and soon by SIGKILL.
    """
    started = time.time()
    change_user = os.geteuid() == 0
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # The child sees the same descriptor until it executes.
            cwd=user_directory(user) if directory is None else f"/proc/self/fd/{directory}",
            env={**user.environment, **(environment or {})},
            start_new_session=True,
            user=user.uid if change_user else None,
            group=user.gid if change_user else None,
            extra_groups=user.groups if change_user else None,
            umask=UMASK,
        )
    except FileNotFoundError:
        raise _not_started(argv, NO_SUCH_PROGRAM, f"no such program: {argv[0]}") from None
    except OSError as error:
        raise _not_started(argv, NOT_EXECUTABLE, f"cannot run {argv[0]}: {error.strerror}") from error
    except ValueError as error:  # a NUL byte in an argument
        raise _not_started(argv, NOT_EXECUTABLE, f"cannot run {argv[0]!r}: {error}") from error
    with process:
        try:
            out, err = _communicate(process, argv[0], stdin or b"", timeout, cancelled)
        except BaseException:
            _end_group(process)
            raise
    return Completed(
        rc=process.returncode,
        stdout=bytes(out.kept),
        stderr=bytes(err.kept),
        started=started,
        ended=time.time(),
        dropped=out.dropped + err.dropped,
    )


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """It is not reaped yet, so that its number is nobody else's."""
    os.killpg(process.pid, signal.SIGTERM)
    ended = os.pidfd_open(process.pid)
    try:
        select.select([ended], [], [], _GRACE)
    finally:
        os.close(ended)
    os.killpg(process.pid, signal.SIGKILL)


def user_directory(user: Account) -> str:
    """Where a user's command starts: at home when there is one."""
    return user.home if os.path.isdir(user.home) else "/"


def _not_started(argv: Sequence[str], rc: int, message: str) -> TaskFailed:
    return TaskFailed(
        message, result={"rc": rc, "cmd": list(argv), "stdout": "", "stderr": "", "changed": False}
    )


def _communicate(
    process: subprocess.Popen[bytes],
    name: str,
    stdin: bytes,
    timeout: float | None,
    cancelled: Callable[[], bool] | None,
) -> tuple[_Stream, _Stream]:
    deadline = None if timeout is None else time.monotonic() + timeout
    out, err = _Stream(), _Stream()
    assert process.stdout is not None and process.stderr is not None
    pidfd = os.pidfd_open(process.pid)
    with selectors.DefaultSelector() as selector:
        try:
            for pipe, stream in ((process.stdout, out), (process.stderr, err)):
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, stream)
            selector.register(pidfd, selectors.EVENT_READ)
            if process.stdin is not None:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE)
            rest = memoryview(stdin)
            while True:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TaskFailed(f"{name} still ran after {timeout:g} s")
                if cancelled is not None:
                    if cancelled():
                        raise TaskFailed(f"{name} was ended: who asked for it has gone")
                    left = _LOOK if left is None else min(left, _LOOK)
                ended = False
                for key, _ in selector.select(left):
                    if key.fileobj == pidfd:
                        ended = True
                    elif key.data is not None:
                        _read(selector, key)
                    else:
                        rest = _write(selector, key, rest)
                if ended:
                    for key in list(selector.get_map().values()):
                        if key.data is not None:
                            for _ in range(_LEFT):
                                if not _read(selector, key):
                                    break
                    process.wait()
                    return out, err
        finally:
            os.close(pidfd)


def _read(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> bool:
    """Whether more may be there."""
    try:
        data = os.read(key.fd, 65536)
    except BlockingIOError:
        return False
    if not data:
        selector.unregister(key.fileobj)
        return False
    key.data.add(data)
    return True


def _write(selector: selectors.BaseSelector, key: selectors.SelectorKey, rest: memoryview) -> memoryview:
    """What is still to be written; closes the pipe at the end, or when nobody reads any more."""
    try:
        rest = rest[os.write(key.fd, rest[:65536]) :] if rest else rest
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        rest = rest[:0]
    if not rest:
        selector.unregister(key.fileobj)
        key.fileobj.close()  # type: ignore[union-attr]
    return rest
