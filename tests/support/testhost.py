"""Test hosts: Linux hosts with a real sshd, made of namespaces on the machine that runs the tests.

    this process's network namespace (a session's, never the machine's)
    └── bridge hbr0 10.213.0.1/24
        ├── h1-web1 ── eth0 10.213.0.11   web1: own root, /run, /var/lib/hawse, processes, cgroups, sshd
        └── h2-db1  ── eth0 10.213.0.12   db1

A host keeps its disk (an overlay of the machine's `/`) over `stop` and `start`; both are as abrupt as a
power cut. Everything of a network is gone after `close`. Refuses to work outside a session
(`tests.support.isolation`), since its bridge must not lie in the machine's own network namespace.

Shared with the machine: the kernel, so `sysctl vm.*`, modules, the clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

from tests.support import cgrouptree, hostroot, isolation
from tests.support.hostinit import ENVIRONMENT

REPOSITORY = Path(__file__).resolve().parents[2]
_START_TIMEOUT = 20.0

Python = Literal["absent", "old", "minimal"]
Sudo = Literal["nopasswd", "password"]


class TestNetwork:
    """A bridge and the test hosts on it. Use it as a context manager, or `close` it."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    def __init__(self) -> None:
        session = isolation.current()
        if session is None:
            raise RuntimeError("test hosts need a session: python -m tests.support.isolation -- COMMAND")
        self.number = _add_bridge()
        self.bridge = f"hbr{self.number}"
        self.address = f"10.213.{self.number}.1"
        self.directory = session.directory / f"net{self.number}"
        self.directory.mkdir()
        self.hosts: list[TestHost] = []
        self.client_key = self.directory / "id_ed25519"
        _make_key(self.client_key, "ed25519", "client")

    def __enter__(self) -> TestNetwork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def host(self, name: str) -> TestHost:
        """Declares a host; `start` makes it run."""
        host = TestHost(self, name, len(self.hosts) + 1)
        self.hosts.append(host)
        return host

    def start(self, *hosts: TestHost) -> None:
        """Starts these hosts, or all, at the same time."""
        starting = [host for host in hosts or self.hosts if not host.running]
        for host in starting:
            host.begin_start()
        for step in (TestHost.plug_in, TestHost.finish_start):
            for host in starting:
                step(host)
        self._publish_names()

    def close(self) -> None:
        for host in self.hosts:
            host.stop()
        _ip("link", "del", self.bridge)
        shutil.rmtree(self.directory)

    @property
    def known_hosts(self) -> Path:
        """An OpenSSH known_hosts file with all hosts, by name and address."""
        path = self.directory / "known_hosts"
        lines = [
            f"{host.name},{host.address},{host.address6} {key}\n"
            for host in self.hosts
            for key in host.host_keys()
        ]
        path.write_text("".join(lines))
        return path

    def inventory(self) -> str:
        """INI lines that make every host reachable as root, its host key pinned."""
        return "".join(
            f"{host.name} ansible_host={host.address} ansible_user=root"
            f" ansible_ssh_private_key_file={self.client_key} hawse_host_key='{host.host_keys()[0]}'\n"
            for host in self.hosts
        )

    def _publish_names(self) -> None:
        """Later hosts become known to earlier ones."""
        text = hostroot.hosts_file({host.name: host.address for host in self.hosts})
        for host in self.hosts:
            if host.running:
                host.path("/etc/hosts").write_text(text)


class TestHost:
    """One host. `run` and `spawn` act from inside, without SSH; testers of SSH use `ssh_args`."""

    __test__ = False

    def __init__(self, network: TestNetwork, name: str, number: int) -> None:
        self.network = network
        self.name = name
        self.address = f"10.213.{network.number}.{10 + number}"
        self.address6 = f"fd00:213:{network.number}::{10 + number}"
        self.directory = network.directory / name
        self.link = f"h{network.number}-{number}-{name}"[:15]
        self.pid = 0
        """PID 1 of the host, as this process sees it; 0 when it does not run."""
        self._starter: subprocess.Popen[str] | None = None
        self._cgroups: cgrouptree.Subtree | None = None
        self._build_disk()

    # -- life ------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._starter is not None and self._starter.poll() is None

    def start(self) -> None:
        self.network.start(self)

    def stop(self) -> None:
        """Ends every process of the host at once, as a power cut would; its disk stays."""
        starter, self._starter, self.pid = self._starter, None, 0
        if starter is not None:
            assert starter.stdin is not None and starter.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                starter.stdin.close()
            starter.wait()
            starter.stdout.close()
            # The kernel drops the cable with the host's network namespace, but later and in the background.
            _ip("link", "del", self.link, check=False)
        if self._cgroups is not None:
            self._cgroups.remove()
            self._cgroups = None

    def reboot(self) -> None:
        self.stop()
        self.start()

    def wait_down(self, timeout: float = 10) -> None:
        """Waits until the host has gone down by itself (its PID 1 was killed)."""
        assert self._starter is not None
        self._starter.wait(timeout)

    def begin_start(self) -> None:
        where = cgrouptree.hierarchies()
        self._cgroups = cgrouptree.make_subtree(f"host-{self.network.number}-{self.name}", where)
        config = {
            "cgroups": [str(path) for path in self._cgroups.directories],
            "hostname": self.name,
            "control": str(self._control),
            "address": f"{self.address}/24",
            "address6": f"{self.address6}/64",
            "gateway": self.network.address,
            **{key: str(self.directory / key) for key in ("root", "upper", "work", "lib")},
        }
        self._control.unlink(missing_ok=True)
        self._starter = subprocess.Popen(
            [sys.executable, "-S", "-E", "-m", "tests.support.hostinit"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        self._tell(json.dumps(config))

    def plug_in(self) -> None:
        self._expect("pid ", "unshared")
        peer = ("peer", "name", "eth0", "netns", str(self.pid))
        _ip("link", "add", self.link, "type", "veth", *peer)
        _ip("link", "set", self.link, "master", self.network.bridge, "up")
        self._tell("go")

    def finish_start(self) -> None:
        self._expect("ready")

    # -- acting inside ---------------------------------------------------------------------------

    def spawn(
        self,
        argv: Sequence[str],
        *,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
    ) -> HostProcess:
        """Starts a command as a child of the host's PID 1, as root, in a session of its own."""
        request = {"argv": list(argv), "env": {**ENVIRONMENT, **(env or {})}, "cwd": cwd}
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            fds = [
                null
                if stream == subprocess.DEVNULL
                else stream
                if isinstance(stream, int)
                else stream.fileno()
                for stream in (stdin, stdout, stderr)
            ]
            connection.settimeout(_START_TIMEOUT)
            connection.connect(str(self._control))
            socket.send_fds(connection, [json.dumps(request).encode()], fds)
            answer = json.loads(connection.recv(4096) or b"{}")
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(null)
        if "pid" not in answer:
            connection.close()
            errno = int(answer.get("errno", 5))
            raise OSError(errno, f"{self.name}: {argv[0]}: {os.strerror(errno)}")
        return HostProcess(host=self, argv=tuple(argv), pid=int(answer["pid"]), connection=connection)

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | bytes = b"",
        check: bool = True,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command inside; on timeout it is killed with its whole session."""
        with _memory_file() as stdin, _memory_file() as stdout, _memory_file() as stderr:
            stdin.write(input.encode() if isinstance(input, str) else input)
            stdin.seek(0)
            process = self.spawn(argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd)
            status = process.wait(timeout)
            out, err = (_read_back(file) for file in (stdout, stderr))
        if check and status != 0:
            raise subprocess.CalledProcessError(status, [f"({self.name})", *argv], out, err)
        return subprocess.CompletedProcess(list(argv), status, out, err)

    def shell(self, script: str, *, check: bool = True, timeout: float = 60) -> str:
        """The output of a shell script run inside."""
        return self.run(["/bin/sh", "-ec", script], check=check, timeout=timeout).stdout

    def kill(self, pid: int, signal_name: str = "KILL") -> None:
        """Signals a process by its pid inside the host."""
        self.run(["/bin/kill", f"-{signal_name}", str(pid)])

    def path(self, path: str) -> Path:
        """A file of the host as this process reaches it. Absolute symbolic links lead astray."""
        return Path(f"/proc/{self.pid}/root{path}")

    def processes(self) -> list[Process]:
        """Every process of the host, by the pids that the host sees."""
        found = []
        for directory in self.path("/proc").iterdir():
            if directory.name.isdigit():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    found.append(_read_process(directory))
        return sorted(found, key=lambda process: process.pid)

    def pids(self, title: str) -> list[int]:
        """Processes whose title (command line) contains `title`."""
        return [process.pid for process in self.processes() if title in process.title]

    def wait_for(self, condition: Callable[[], object], what: str, timeout: float = 10) -> None:
        """Waits until `condition` is true of this host; names `what` it waited for when it never is."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: not within {timeout:g} s: {what}")
            time.sleep(0.02)

    # -- SSH -------------------------------------------------------------------------------------

    @property
    def ssh_args(self) -> list[str]:
        """Arguments for OpenSSH's client, with root's key; append the command."""
        return [*self.ssh_options, "-i", str(self.network.client_key), f"root@{self.address}"]

    @property
    def ssh_options(self) -> list[str]:
        known = f"UserKnownHostsFile={self.network.known_hosts}"
        words = ("StrictHostKeyChecking=yes", known, "IdentitiesOnly=yes", "IdentityAgent=none")
        return ["-F", "none", *(part for word in words for part in ("-o", word))]

    def ssh(
        self, command: str, *, input: bytes = b"", check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command as root by OpenSSH, from outside."""
        result = subprocess.run(
            ["ssh", "-o", "BatchMode=yes", *self.ssh_args, "--", command],
            input=input,
            capture_output=True,
            check=check,
            timeout=timeout,
        )
        out, err = (part.decode(errors="surrogateescape") for part in (result.stdout, result.stderr))
        return subprocess.CompletedProcess(result.args, result.returncode, out, err)

    def host_keys(self) -> list[str]:
        """Public keys as in known_hosts, ed25519 first: `ssh-ed25519 AAAA…`."""
        texts = [(self.directory / f"ssh_host_{kind}_key.pub").read_text() for kind in ("ed25519", "ecdsa")]
        return [" ".join(text.split()[:2]) for text in texts]

    # -- changing the host -----------------------------------------------------------------------

    def add_user(
        self,
        name: str,
        *,
        password: str | None = None,
        sudo: Sudo | None = None,
        key: bool = True,
        bashrc: str = "",
    ) -> None:
        """Makes a login user: by password if given, by the network's client key if `key`."""
        self.run(["/usr/sbin/useradd", "-m", "-s", "/bin/bash", name])
        if password is None:
            # Without PAM, sshd refuses a locked account (`!`) even by key.
            self.run(["/usr/sbin/usermod", "-p", "*", name])
        else:
            self.run(["/usr/sbin/chpasswd"], input=f"{name}:{password}\n")
        if sudo is not None:
            rule = "NOPASSWD: ALL" if sudo == "nopasswd" else "ALL"
            self.write_file(f"/etc/sudoers.d/{name}", f"{name} ALL=(ALL:ALL) {rule}\n", 0o440)
        if key:
            self.write_file(f"/home/{name}/.ssh/authorized_keys", self._client_public_key(), 0o600)
            self.run(["/bin/chown", "-R", f"{name}:", f"/home/{name}/.ssh"])
        if bashrc:
            # Debian's own .bashrc stops early when it is not interactive: this comes before that.
            path = f"/home/{name}/.bashrc"
            self.write_file(path, f"{bashrc}\n{self.path(path).read_text()}")

    def write_file(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode() if isinstance(text, str) else text)
        target.chmod(mode)

    def hide_python(self, how: Python = "absent") -> None:
        """Takes Python away: all of it, all but 3.9's likeness, or a part of its standard library."""
        self.shell(_HIDE_PYTHON[how])
        if how == "old":
            self.write_file("/usr/bin/python3", _OLD_PYTHON, 0o755)

    def restore_python(self) -> None:
        self.shell(_RESTORE_PYTHON)

    def small_disk(self, path: str, size: str) -> None:
        """Mounts an empty tmpfs of that size (as in `16m`) on `path`."""
        self.shell(f"mkdir -p {path} && mount -t tmpfs -o size={size},mode=755 none {path}")

    def unmount(self, path: str) -> None:
        self.run(["/bin/umount", path])

    def fill_disk(self, path: str, *, leave: int = 0) -> None:
        """Fills the file system at `path` with a file `ballast.test` there, up to `leave` bytes."""
        ballast = self.path(path) / "ballast.test"
        with ballast.open("wb", buffering=0) as file:
            status = os.fstatvfs(file.fileno())
            os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - leave)

    def free_disk(self, path: str) -> None:
        (self.path(path) / "ballast.test").unlink()

    def block_network(self) -> None:
        """Pulls the cable: packets vanish, nobody is told."""
        _ip("link", "set", self.link, "down")

    def unblock_network(self) -> None:
        _ip("link", "set", self.link, "up")

    # -- internals -------------------------------------------------------------------------------

    @property
    def _control(self) -> Path:
        return self.directory / "control"

    def _build_disk(self) -> None:
        for name in ("upper", "work", "root", "lib"):
            (self.directory / name).mkdir(parents=True)
            (self.directory / name).chmod(0o755)
        upper = self.directory / "upper"
        hostroot.build(
            upper,
            hostname=self.name,
            hosts={host.name: host.address for host in (*self.network.hosts, self)},
            authorized_key=self._client_public_key(),
            hide=REPOSITORY,
        )
        for kind in ("ed25519", "ecdsa"):
            _make_key(upper / f"etc/ssh/ssh_host_{kind}_key", kind, self.name)
            # A copy, since the disk belongs to the host from now on.
            shutil.copy(upper / f"etc/ssh/ssh_host_{kind}_key.pub", self.directory)

    def _client_public_key(self) -> str:
        return self.network.client_key.with_suffix(".pub").read_text()

    def _tell(self, line: str) -> None:
        assert self._starter is not None and self._starter.stdin is not None
        self._starter.stdin.write(f"{line}\n")
        self._starter.stdin.flush()

    def _expect(self, *lines: str) -> None:
        """Reads the starter's lines until each of these has come, in any order."""
        assert self._starter is not None and self._starter.stdout is not None
        missing = set(lines)
        while missing:
            line = self._starter.stdout.readline().rstrip("\n")
            if line.startswith("pid "):
                self.pid = int(line.removeprefix("pid "))
            known = {word for word in missing if line.startswith(word)}
            if not known:
                self.stop()
                raise RuntimeError(f"{self.name} did not start: {line or 'its starter ended'}")
            missing -= known


class HostProcess:
    """A command running in a host, started by `TestHost.spawn`."""

    def __init__(self, *, host: TestHost, argv: tuple[str, ...], pid: int, connection: socket.socket) -> None:
        self.argv = argv
        self.pid = pid
        """As the host sees it."""
        self._host = host
        self._connection = connection
        self._status: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for a signal; on timeout it is killed and TimeoutExpired raised."""
        if self._status is not None:
            return self._status
        self._connection.settimeout(timeout)
        try:
            answer = self._connection.recv(4096)
        except TimeoutError as error:
            self.close()
            raise subprocess.TimeoutExpired([f"({self._host.name})", *self.argv], timeout or 0) from error
        self.close()
        if not answer:
            raise RuntimeError(f"{self._host.name} went down while {self.argv[0]} was running")
        self._status = int(json.loads(answer)["status"])
        return self._status

    def close(self) -> None:
        """Kills the command with its session, if it still runs."""
        self._connection.close()


@dataclass(frozen=True, kw_only=True)
class Process:
    pid: int
    parent: int
    name: str
    title: str


def _read_process(directory: Path) -> Process:
    name, _, rest = (directory / "stat").read_text().partition(" (")[2].rpartition(") ")
    title = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return Process(pid=int(directory.name), parent=int(rest.split()[1]), name=name, title=title or name)


def _add_bridge() -> int:
    for number in range(256):
        if _ip("link", "add", f"hbr{number}", "type", "bridge", check=False).returncode == 0:
            _ip("addr", "add", f"10.213.{number}.1/24", "dev", f"hbr{number}")
            _ip("addr", "add", f"fd00:213:{number}::1/64", "dev", f"hbr{number}", "nodad")
            _ip("link", "set", f"hbr{number}", "up")
            return number
    raise RuntimeError("no bridge hbr0 … hbr255 could be made")


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(["ip", *words], capture_output=True, text=True)
    if check and result.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {result.stderr.strip()}")
    return result


def _make_key(path: Path, kind: str, comment: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", path], check=True)


def _memory_file() -> IO[bytes]:
    return os.fdopen(os.memfd_create("test-host", os.MFD_CLOEXEC), "w+b", buffering=0)


def _read_back(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="surrogateescape")


_HIDDEN = "/usr/lib/hidden-python"
_HIDE_PYTHON: Mapping[Python, str] = {
    "absent": f"mkdir {_HIDDEN} && mv /usr/bin/python3* {_HIDDEN}/",
    "old": f"mkdir {_HIDDEN} && mv /usr/bin/python3* {_HIDDEN}/",
    # What Debian's python3-minimal lacks.
    "minimal": f"""mkdir {_HIDDEN} && cd /usr/lib/python3.*/ && pwd > {_HIDDEN}/from
        mv json http urllib sqlite3 asyncio {_HIDDEN}/""",
}
_RESTORE_PYTHON = f"""
    if [ -e {_HIDDEN}/from ]; then
        to=$(cat {_HIDDEN}/from); rm {_HIDDEN}/from
    else
        to=/usr/bin; rm -f /usr/bin/python3
    fi
    mv {_HIDDEN}/* "$to"/ && rmdir {_HIDDEN}
"""
_OLD_PYTHON = f"""#!{_HIDDEN}/python3
# Behaves like Python 3.9 as far as a program can ask for the version.
import collections, sys
version = collections.namedtuple("version_info", "major minor micro releaselevel serial")
sys.version_info = version(3, 9, 2, "final", 0)
sys.version = "3.9.2 (default)"
sys.hexversion = 0x030902F0
words = sys.argv[1:]
while words and words[0].startswith("-") and words[0] not in ("-", "-c", "-m"):
    if words.pop(0) in ("-V", "--version"):
        sys.exit(print("Python 3.9.2"))
if words[:1] == ["-c"]:
    code, sys.argv = words[1], ["-c", *words[2:]]
elif words[:1] == ["-m"]:
    sys.exit(f"{{sys.executable}}: No module named {{words[1]}}")
elif words and words[0] != "-":
    code, sys.argv = open(words[0]).read(), words
else:
    code, sys.argv = sys.stdin.read(), ["-"]
exec(compile(code, "<string>", "exec"), {{"__name__": "__main__"}})
"""
