"""This machine as a host (`ansible_connection: local`): commands run as child processes, without SSH."""

from __future__ import annotations

import contextlib
import getpass
import os
import select
import subprocess

from hawse.ssh.connection import SEND_TIMEOUT, Connection, Process
from hawse.ssh.target import Target


class LocalConnection(Connection):
    def __init__(self, target: Target) -> None:
        self.name = target.name
        self.user = getpass.getuser()
        self.become_password = target.become_password
        self.sudo_timeout = target.timeouts.sudo

    @property
    def is_root(self) -> bool:
        return os.geteuid() == 0

    def open(self, command: str) -> Process:
        return _LocalProcess(command)

    def close(self) -> None:
        """Nothing is kept open between commands."""


class _LocalProcess(Process):
    def __init__(self, command: str) -> None:
        self._popen = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=os.path.expanduser("~"),
            start_new_session=True,  # Ctrl-C at the terminal is ours to handle
        )
        assert self._popen.stdin and self._popen.stdout and self._popen.stderr
        self._stdin, self._stdout, self._stderr = self._popen.stdin, self._popen.stdout, self._popen.stderr

    def recv(self, size: int, timeout: float | None = None) -> bytes:
        return _read(self._stdout.fileno(), size, timeout)

    def _recv_stderr(self, size: int, timeout: float | None) -> bytes:
        return _read(self._stderr.fileno(), size, timeout)

    def send(self, data: bytes, timeout: float | None = SEND_TIMEOUT) -> None:
        view = memoryview(data)
        poll = select.poll()
        poll.register(self._stdin.fileno(), select.POLLOUT)
        while view:
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise TimeoutError("nobody reads")
            view = view[os.write(self._stdin.fileno(), view[: select.PIPE_BUF]) :]

    def close_stdin(self) -> None:
        self._stdin.close()

    def wait(self, timeout: float | None = None) -> int:
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(str(error)) from error
        return 128 - code if code < 0 else code

    def close(self) -> None:
        self._stdin.close()
        try:
            self._popen.wait(1.0)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(PermissionError):  # sudo runs as root: closing its streams must do
                self._popen.kill()
                self._popen.wait()
        self._stdout.close()
        self._stderr.close()


def _read(fd: int, size: int, timeout: float | None) -> bytes:
    if timeout is not None:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise TimeoutError
    return os.read(fd, size)
