"""A way to run commands on a host: what SSH and this machine have in common.

    Connection ── start(command) ──► Process    bytes both ways, stderr kept aside, an exit status
               ── run(command)   ──► Completed  all of it at once

`root=True` runs the command as root: by sudo where the login user is another one. A wrong password, a user
who may not use sudo and a sudo that is not there raise `Unreachable(stage="sudo")`, before the command runs.
"""

from __future__ import annotations

import abc
import secrets
import shlex
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

from hawse_agent.errors import Unreachable

PIECE = 256 * 1024
"""Bytes to hand to a channel at once: more is quadratic in paramiko."""
STDERR_KEPT = 64 * 1024
SEND_TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a command left. `code` is 128 + signal when it was killed."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")

    @property
    def errors(self) -> str:
        return self.stderr.decode(errors="replace").strip()


class Process(abc.ABC):
    """A command that runs on a host. One thread may write while another reads."""

    _ahead = b""

    @abc.abstractmethod
    def recv(self, size: int, timeout: float | None = None) -> bytes:
        """Some bytes of stdout, b"" at its end; TimeoutError when none come in time."""

    def recv_stderr(self, size: int, timeout: float | None = None) -> bytes:
        """Some bytes of stderr, b"" at its end; TimeoutError when none come in time."""
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        return self._recv_stderr(size, timeout)

    def unread_stderr(self, data: bytes) -> None:
        """Gives back what was read too far."""
        self._ahead = data + self._ahead

    @abc.abstractmethod
    def _recv_stderr(self, size: int, timeout: float | None) -> bytes: ...

    @abc.abstractmethod
    def send(self, data: bytes, timeout: float | None = SEND_TIMEOUT) -> None:
        """Writes all of it to stdin; BrokenPipeError when it is closed, TimeoutError when nobody reads."""

    @abc.abstractmethod
    def close_stdin(self) -> None: ...

    @abc.abstractmethod
    def wait(self, timeout: float | None = None) -> int:
        """The exit status (128 + signal); TimeoutError when the command goes on."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the command when it still runs, by closing its streams."""

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Connection(abc.ABC):
    """An open way to a host."""

    name: str
    user: str
    """The login user on the host."""
    key_fingerprint: str = ""
    """Of the key that logged in; goes to the host's audit log."""
    sudo_timeout: float = 20.0
    become_password: str = ""

    @abc.abstractmethod
    def open(self, command: str) -> Process:
        """Starts a shell command as the login user."""

    @abc.abstractmethod
    def close(self) -> None: ...

    @property
    @abc.abstractmethod
    def is_root(self) -> bool: ...

    def start(self, command: str, *, root: bool = False) -> Process:
        """Starts a command; when it returns, sudo has let it through."""
        if not root or self.is_root:
            return self.open(command)
        return start_sudo(self, command)

    def run(
        self, command: str, *, root: bool = False, input: bytes | Iterable[bytes] = b"", timeout: float = 60.0
    ) -> Completed:
        """Runs a command to its end; `Unreachable(stage="agent")` when it takes longer than `timeout`."""
        with self.start(command, root=root) as process:
            return _communicate(process, input, timeout, self.name)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _communicate(process: Process, input: bytes | Iterable[bytes], timeout: float, name: str) -> Completed:
    """Feeds and drains all three streams at once, so that none can block another."""
    errors = bytearray()
    broken: list[Exception] = []

    def drain() -> None:
        try:
            while data := process.recv_stderr(PIECE):
                errors.extend(data)
                del errors[:-STDERR_KEPT]
        except OSError:
            pass  # stdout has ended by the same cause, and says so

    def feed() -> None:
        try:
            for piece in [input] if isinstance(input, bytes) else input:
                process.send(piece)
            process.close_stdin()
        except BrokenPipeError:
            pass  # the command does not want more; its status tells whether that is an error
        except Exception as error:  # what the input's own iterator raises as well
            broken.append(error)
            process.close()

    helpers = [threading.Thread(target=drain, name=f"{name} stderr", daemon=True)]
    if input:
        helpers.append(threading.Thread(target=feed, name=f"{name} stdin", daemon=True))
    else:
        process.close_stdin()
    for helper in helpers:
        helper.start()
    output = bytearray()
    deadline = time.monotonic() + timeout
    try:
        while data := process.recv(PIECE, max(0.0, deadline - time.monotonic())):
            output.extend(data)
        code = process.wait(max(0.0, deadline - time.monotonic()))
    except TimeoutError as error:
        raise Unreachable(f"{name}: a command took longer than {timeout:g} s", stage="agent") from error
    except ConnectionResetError as error:
        raise Unreachable(f"{name}: {error}", stage="tcp") from error
    for helper in helpers:
        helper.join(timeout)
    if broken:
        raise broken[0]
    return Completed(code=code, stdout=bytes(output), stderr=bytes(errors))


def start_sudo(connection: Connection, command: str) -> Process:
    """Starts a command as root, and returns once it does run as root.

    The command announces itself on stderr by a marker. The password is sent only when sudo asks for it with
    our own prompt: a password line that nobody asked for would reach the command's stdin.
    """
    token = secrets.token_hex(8)
    prompt, marker = f"[hawse-password-{token}]", f"[hawse-root-{token}]"
    password = connection.become_password
    how = f"-S -p {prompt!r}" if password else "-n"
    inner = shlex.quote(f"unset LC_ALL; echo {marker!r} >&2; {command}")
    process = connection.open(f"exec env LC_ALL=C sudo {how} -u root -- /bin/sh -c {inner}")
    seen, sent = b"", False
    try:
        while marker.encode() + b"\n" not in seen:
            try:
                data = process.recv_stderr(4096, connection.sudo_timeout)
            except TimeoutError as error:
                raise _sudo_refused(connection, f"no answer within {connection.sudo_timeout:g} s") from error
            except ConnectionResetError as error:
                raise Unreachable(f"{connection.name}: {error}", stage="tcp") from error
            seen += data
            if not data:
                text = seen.decode(errors="replace").replace(prompt, "")
                raise _sudo_refused(connection, _reason(text, sent))
            asked = seen.count(prompt.encode())
            if asked and not sent:
                sent = True
                process.send(password.encode() + b"\n")
            elif asked > 1:
                raise _sudo_refused(connection, "the password is wrong")
    except BaseException:
        process.close()
        raise
    process.unread_stderr(seen.split(marker.encode() + b"\n", 1)[1])
    return process


def _reason(seen: str, password_sent: bool) -> str:
    lines = [line.strip() for line in seen.splitlines() if line.strip()]
    text = next((line for line in lines if line.startswith("sudo:")), lines[-1] if lines else "no answer")
    if password_sent and ("incorrect password" in seen or "no password was provided" in seen):
        return "the password is wrong"
    return text.removeprefix("sudo:").strip()


def _sudo_refused(connection: Connection, reason: str) -> Unreachable:
    hint = "set ansible_become_password (or use -K)" if "password is required" in reason else ""
    return Unreachable(
        f"{connection.name}: {connection.user} cannot become root by sudo: {reason}", stage="sudo", hint=hint
    )
