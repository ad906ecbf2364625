"""Connections by SSH: dial, check the host key, log in, run commands on channels.

Each stage has its timeout and its name in `Unreachable`. A jump host is connected once and shared by every
host behind it. Closing a connection closes all its channels; nothing here is left to the garbage collector.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko

from hawse.ssh import known_hosts
from hawse.ssh.auth import KeyRing, log_in
from hawse.ssh.config import Settings, settings
from hawse.ssh.connection import PIECE, SEND_TIMEOUT, Connection, Process
from hawse.ssh.dialer import dial
from hawse.ssh.known_hosts import HostKey, KnownHosts
from hawse.ssh.target import Target
from hawse.ssh.transport import Transport
from hawse_agent.errors import HawseError, InputError, Stage, Unreachable

Warn = Callable[[str], None]


class SshClient:
    """Connects to hosts; keeps what connections share: keys, known hosts, jump hosts."""

    def __init__(self, *, keys: KeyRing | None = None, warn: Warn = lambda text: None) -> None:
        self._keys = keys or KeyRing()
        self._warn = warn
        self._lock = threading.Lock()
        self._jumps: dict[tuple[str, ...], _Jump] = {}
        self._known: dict[tuple[object, ...], KnownHosts] = {}

    def connect(self, target: Target) -> SshConnection:
        return self._connect(target, ())

    def close(self) -> None:
        """Closes the jump hosts; connections through them are cut."""
        with self._lock:
            jumps, self._jumps = list(self._jumps.values()), {}
        for jump in jumps:
            jump.close()

    def _connect(self, target: Target, passed: tuple[str, ...]) -> SshConnection:
        chosen = settings(target)
        sock = self._socket(target, chosen, passed)
        try:
            transport = self._handshake(target, chosen, sock)
        except BaseException:
            sock.close()
            raise
        try:
            if not self._check_key(target, chosen, transport):
                target = replace(target, password="", become_password="")
            transport.auth_timeout = target.timeouts.auth
            login = log_in(
                transport,
                chosen,
                self._keys,
                name=target.name,
                password=target.password,
                passphrase=target.private_key_passphrase,
            )
        except BaseException:
            transport.close()
            raise
        fingerprint = login.key.fingerprint if login.key else "password"
        return SshConnection(target, chosen, transport, fingerprint)

    # -- reaching the host -----------------------------------------------------------------------

    def _socket(
        self, target: Target, chosen: Settings, passed: tuple[str, ...]
    ) -> socket.socket | paramiko.Channel:
        # `Host *` with a ProxyJump names the jump host for itself too.
        jumps = tuple(hop for hop in chosen.jumps if hop not in (target.host, chosen.host, *passed))
        if jumps:
            return self._through(target, chosen, jumps, passed)
        if chosen.proxy_command:
            return _proxy(chosen.proxy_command)
        times = target.timeouts
        try:
            return dial(
                chosen.host, chosen.port, resolve_timeout=times.resolve, connect_timeout=times.connect
            )
        except Unreachable as error:
            raise Unreachable(f"{target.name}: {error}", stage=error.stage, hint=error.hint) from error

    def _through(
        self, target: Target, chosen: Settings, jumps: tuple[str, ...], passed: tuple[str, ...]
    ) -> paramiko.Channel:
        """A channel to the host from the last of these hops, each reached through those before it."""
        with self._lock:
            jump = self._jumps.setdefault(jumps, _Jump())
        hop = jump.connection(lambda: self._connect_hop(target, jumps, passed))
        return hop.forward(chosen.host, chosen.port, target)

    def _connect_hop(self, target: Target, jumps: tuple[str, ...], passed: tuple[str, ...]) -> SshConnection:
        user, host, port = _parse_hop(jumps[-1])
        before = ",".join(jumps[:-1])
        hop = Target(
            name=f"{target.name} via {host}",
            address=host,
            port=port,
            user=user,
            ssh_args=("-J", before) if before else (),
            host_key_policy=target.host_key_policy,
            known_hosts=target.known_hosts,
            private_key=target.private_key,
            private_key_passphrase=target.private_key_passphrase,
            use_agent=target.use_agent,
            timeouts=target.timeouts,
        )
        return self._connect(hop, (*passed, jumps[-1]))

    # -- handshake -------------------------------------------------------------------------------

    def _handshake(
        self, target: Target, chosen: Settings, sock: socket.socket | paramiko.Channel
    ) -> Transport:
        kinds = self._expected_kinds(target, chosen)
        transport = Transport(sock, key_kinds=kinds, banner=target.timeouts.banner)
        try:
            transport.start_client(timeout=target.timeouts.banner)
            if not transport.initial_kex_done:  # it returns as if all was well
                raise paramiko.SSHException(f"no answer within {target.timeouts.banner:g} s")
        except (paramiko.SSHException, OSError, EOFError) as error:
            transport.close()
            reason = str(error) or "the host ended the connection"
            raise Unreachable(
                f"{target.name}: no SSH with {chosen.host} port {chosen.port}: {reason}",
                stage="banner",
                hint="is it an SSH server that answers there?",
            ) from error
        return transport

    def _expected_kinds(self, target: Target, chosen: Settings) -> list[str]:
        if target.host_key:
            return [_pinned(target).kind]
        return self._known_hosts(chosen).kinds(chosen.alias, chosen.port)

    def _known_hosts(self, chosen: Settings) -> KnownHosts:
        """Loaded once for each state of the files."""
        stamp = tuple((path, _modified(path)) for path in chosen.known_hosts)
        with self._lock:
            if stamp not in self._known:
                self._known[stamp] = KnownHosts.load(chosen.known_hosts)
            return self._known[stamp]

    def _check_key(self, target: Target, chosen: Settings, transport: Transport) -> bool:
        """False: not the key that is known, which the policy "off" lets pass, but no password goes there.

        OpenSSH keeps passwords back in that case too (ssh_config(5), StrictHostKeyChecking).
        """
        shown = transport.get_remote_server_key()
        key = HostKey(kind=shown.get_name(), blob=shown.asbytes())
        name = known_hosts.host_name(chosen.alias, chosen.port)
        where = f"{target.name} ({name})"
        if target.host_key:
            pinned = _pinned(target)
            if pinned == key:
                return True
            raise _wrong_key(
                f"{where} shows another host key than the inventory pins: {key.kind} {key.fingerprint}"
                f" instead of {pinned.fingerprint}",
                hint="if the host was set up anew, correct hawse_host_key",
            )
        verdict, entry = self._known_hosts(chosen).check(chosen.alias, chosen.port, key)
        if verdict == "match":
            return True
        if verdict == "revoked" and entry:
            raise _wrong_key(f"{where} shows a revoked host key ({entry.where})")
        if target.host_key_policy == "off":
            if verdict == "mismatch" and entry:
                self._warn(
                    f"{where}: the host key {key.fingerprint} is not the one that {entry.where} says;"
                    " no password is sent there"
                )
                return False
            self._warn(f"{where}: the host key {key.fingerprint} is not checked")
            return True
        if verdict == "mismatch" and entry:
            raise _wrong_key(
                f"{where} shows another host key than {entry.where} says: {key.kind} {key.fingerprint}"
                f" instead of {entry.key.kind} {entry.key.fingerprint}",
                hint=f"if the host was set up anew: ssh-keygen -R '{name}'",
            )
        if target.host_key_policy == "accept-new":
            known_hosts.append(chosen.known_hosts[0], chosen.alias, chosen.port, key)
            self._warn(f"{where}: new host key {key.kind} {key.fingerprint} is now known")
            return True
        raise _wrong_key(
            f"{where} is not a known host; it shows {key.kind} {key.fingerprint}",
            hint="compare the fingerprint, then add the key to known_hosts, pin it as hawse_host_key,"
            " or connect with host keys accept-new",
        )


class SshConnection(Connection):
    """One authenticated transport. Channels are opened by any thread."""

    def __init__(self, target: Target, chosen: Settings, transport: Transport, fingerprint: str) -> None:
        self.name = target.name
        self.user = chosen.user
        self.key_fingerprint = fingerprint
        self.become_password = target.become_password
        self.sudo_timeout = target.timeouts.sudo
        self.settings = chosen
        self._transport = transport
        self._channel_timeout = target.timeouts.channel

    @property
    def is_root(self) -> bool:
        return self.user == "root"

    @property
    def alive(self) -> bool:
        return bool(self._transport.is_active())

    def open(self, command: str) -> Process:
        channel = self._open_channel("session")
        try:
            channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            channel.close()
            raise self._lost("the host refused to run a command", error) from error
        return _SshProcess(channel)

    def forward(self, host: str, port: int, target: Target) -> paramiko.Channel:
        """A TCP connection from this host to another."""
        try:
            channel: paramiko.Channel = self._transport.open_channel(
                "direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=target.timeouts.connect
            )
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise Unreachable(
                f"{target.name}: the jump host {self.settings.host} cannot reach {host} port {port}: {error}",
                stage="tcp",
            ) from error
        return channel

    def close(self) -> None:
        self._transport.close()

    def _open_channel(self, kind: str) -> paramiko.Channel:
        try:
            channel: paramiko.Channel = self._transport.open_channel(kind, timeout=self._channel_timeout)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost("no channel could be opened", error) from error
        return channel

    def _lost(self, what: str, error: BaseException) -> Unreachable:
        stage: Stage = "agent" if self.alive else "tcp"
        return Unreachable(f"{self.name}: {what}: {error or 'the connection is gone'}", stage=stage)


class _SshProcess(Process):
    """Reads with a timeout of their own each: a channel has but one, and two threads use it."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel: Any = channel

    def recv(self, size: int, timeout: float | None = None) -> bytes:
        return self._read(self._channel.in_buffer, size, timeout)

    def _recv_stderr(self, size: int, timeout: float | None) -> bytes:
        return self._read(self._channel.in_stderr_buffer, size, timeout)

    def send(self, data: bytes, timeout: float | None = SEND_TIMEOUT) -> None:
        view = memoryview(data)
        self._channel.settimeout(timeout)
        for start in range(0, len(view), PIECE):
            try:
                self._channel.sendall(view[start : start + PIECE])
            except TimeoutError:
                raise
            except (OSError, EOFError) as error:
                self._check_alive()
                raise BrokenPipeError(str(error)) from error

    def close_stdin(self) -> None:
        with contextlib.suppress(OSError, EOFError):  # already closed by the other side
            self._channel.shutdown_write()

    def wait(self, timeout: float | None = None) -> int:
        if not self._channel.status_event.wait(timeout):
            raise TimeoutError("the command has not ended")
        code = int(self._channel.exit_status)
        if code < 0:
            self._check_alive()
        return 255 if code < 0 else code

    def close(self) -> None:
        self._channel.close()

    def _read(self, pipe: Any, size: int, timeout: float | None) -> bytes:
        try:
            data: bytes = pipe.read(size, timeout)
        except paramiko.buffered_pipe.PipeTimeout as error:
            raise TimeoutError("no data in time") from error
        if not data and not self._channel.eof_received:
            self._check_alive()
        acknowledged = self._channel._check_add_window(len(data))
        if acknowledged > 0:
            message = paramiko.Message()
            message.add_byte(paramiko.common.cMSG_CHANNEL_WINDOW_ADJUST)
            message.add_int(self._channel.remote_chanid)
            message.add_int(acknowledged)
            with contextlib.suppress(OSError, EOFError):  # cut: the next read says so
                self._channel.transport._send_user_message(message)
        return data

    def _check_alive(self) -> None:
        if not self._channel.transport.is_active():
            raise ConnectionResetError("the connection was cut")


class _Jump:
    """A jump host: connected by the first who needs it; a failure is told to all who wait for it."""

    _REMEMBER = 30.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: SshConnection | None = None
        self._failure: tuple[float, HawseError] | None = None

    def connection(self, connect: Callable[[], SshConnection]) -> SshConnection:
        with self._lock:
            if self._connection is not None and self._connection.alive:
                return self._connection
            if self._failure and time.monotonic() - self._failure[0] < self._REMEMBER:
                raise self._failure[1]
            try:
                self._connection = connect()
            except HawseError as error:
                self._failure = (time.monotonic(), error)
                raise
            return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _parse_hop(hop: str) -> tuple[str, str, int]:
    """`[user@]host[:port]` or `ssh://…`; an IPv6 address stands in brackets."""
    user, _, rest = hop.removeprefix("ssh://").rstrip("/").rpartition("@")
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = rest.partition(":")
    if not host or (port and not port.isdecimal()):
        raise InputError(f"not a jump host: {hop!r}")
    return user, host, int(port or 0)


class _ProxySocket(socket.socket):
    """Closing it ends its ProxyCommand by SIGHUP, as OpenSSH does: not every program minds its stdin."""

    process: subprocess.Popen[bytes]

    def close(self) -> None:
        super().close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)


def _proxy(command: str) -> socket.socket:
    """A socket whose other end is the stdin and stdout of a ProxyCommand."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            start_new_session=True,
        )
    threading.Thread(target=process.wait, name="proxy command", daemon=True).start()
    proxy = _ProxySocket(fileno=ours.detach())
    proxy.process = process
    return proxy


def _pinned(target: Target) -> HostKey:
    try:
        return known_hosts.parse_key(target.host_key)
    except ValueError as error:
        raise InputError(f"{target.name}: hawse_host_key: {error}") from error


def _wrong_key(message: str, *, hint: str = "") -> Unreachable:
    return Unreachable(message, stage="host key", hint=hint)


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
