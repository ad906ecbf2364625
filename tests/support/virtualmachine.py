"""A virtual machine of one MachineImage, emulated by qemu without KVM, reached over loopback by SSH.

Its network is qemu's own: nothing gets out of it, and in only through the ports of 127.0.0.1 that are named
here. The console is kept in `console.log`. From start to sshd it takes about 20 s.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.machineimage import QEMU, MachineImage

BOOT_TIMEOUT = 240.0
HALT_TIMEOUT = 120.0
_POLL = 0.2


class VirtualMachine:
    """`forwarded` are the machine's TCP ports that can be reached from here, beside sshd's."""

    def __init__(
        self, image: MachineImage, directory: Path, *, forwarded: Sequence[int] = (), memory: int = 2048
    ) -> None:
        self.image = image
        self.directory = directory
        self.memory = memory
        self.console = directory / "console.log"
        self.ports = dict(zip((22, *forwarded), _free_ports(1 + len(forwarded)), strict=True))
        """Port of the machine → port of 127.0.0.1."""
        self._disk = directory / "disk"
        self._qemu: subprocess.Popen[bytes] | None = None
        self._forwarded: set[Path] = set()
        # `cp` keeps the holes.
        subprocess.run(["cp", "--sparse=always", image.disk, self._disk], check=True)
        self._key = directory / "key"
        shutil.copy(image.client_key, self._key)
        self._key.chmod(0o600)
        self._known_hosts = directory / "known_hosts"
        self._known_hosts.write_text(f"[127.0.0.1]:{self.ports[22]} {image.host_key}\n")

    def inventory(self, name: str) -> str:
        """An INI line that makes it reachable as root, its host key pinned."""
        return (
            f"{name} ansible_host=127.0.0.1 ansible_port={self.ports[22]} ansible_user=root"
            f" ansible_ssh_private_key_file={self._key} hawse_host_key='{self.image.host_key}'\n"
        )

    def start(self) -> None:
        """Returns when sshd answers."""
        with (self.directory / "qemu.log").open("ab") as log:
            self._qemu = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait_for_boot("")

    def run(
        self, command: str, *, check: bool = True, input: bytes = b"", timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """A shell command there, as root. All go through one connection of OpenSSH."""
        words = [*self._ssh(), "root@127.0.0.1", command]
        done = subprocess.run(words, input=input, capture_output=True, timeout=timeout)
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode != 0:
            raise RuntimeError(f"{command}: exit code {done.returncode}\n{out}{err}")
        return subprocess.CompletedProcess(words, done.returncode, out, err)

    def output(self, command: str) -> str:
        return self.run(command).stdout.strip()

    def forward(self, path: str) -> Path:
        """A socket here that leads to the one at `path` there, until the machine goes down."""
        here = self.directory / Path(path).name
        if here in self._forwarded:
            return here
        here.unlink(missing_ok=True)
        forward = [*self._ssh(), "-O", "forward", "-L", f"{here}:{path}", "root@127.0.0.1"]
        self.run("true")  # the connection that carries it is there
        subprocess.run(forward, check=True, capture_output=True)
        self._forwarded.add(here)
        return here

    def reboot(self) -> None:
        """In good order; returns when sshd answers again."""
        before = self.output(_BOOT_ID)
        self.run("systemctl reboot", check=False)  # the connection may be gone before the answer
        self._wait_for_boot(before)

    def cut_power(self) -> None:
        """What the machine has not made sure to be on the disk is lost."""
        assert self._qemu is not None
        self._qemu.kill()
        self._qemu.wait()
        self._forget_connection()

    def stop(self) -> None:
        """In good order if it can, else by cutting its power."""
        if self._qemu is None or self._qemu.poll() is not None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.run("systemctl poweroff", check=False, timeout=HALT_TIMEOUT)
            self._qemu.wait(HALT_TIMEOUT)
        self.cut_power()

    def _command(self) -> list[str]:
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in self.ports.items())
        return [
            *(QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(self.memory)),
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd)),
            *("-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet"),
            *("-drive", f"file={self._disk},format=raw,if=virtio,cache=unsafe"),
            *("-netdev", f"user,id=lan,restrict=on{forwards}", "-device", "virtio-net-pci,netdev=lan"),
            *("-device", "virtio-rng-pci", "-serial", f"file:{self.console}"),
        ]

    def _ssh(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "ConnectTimeout": "10",
            "ControlMaster": "auto",
            "ControlPath": f"{self.directory}/ssh",
            "ControlPersist": "yes",
            "UserKnownHostsFile": str(self._known_hosts),
            "LogLevel": "ERROR",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", "-i", str(self._key), "-p", str(self.ports[22]), *words]

    def _wait_for_boot(self, before: str) -> None:
        """Until a machine with another boot id than `before` answers. qemu accepts connections long before
        sshd does, and no event tells of sshd: it is asked again."""
        assert self._qemu is not None
        self._forget_connection()
        deadline = time.monotonic() + BOOT_TIMEOUT
        while time.monotonic() < deadline:
            if self._qemu.poll() is not None:
                raise RuntimeError(f"qemu has ended: {(self.directory / 'qemu.log').read_text()[-2000:]}")
            if self._sshd_answers():
                done = self.run(_BOOT_ID, check=False)
                if done.returncode == 0 and done.stdout.strip() != before:
                    return
                self._forget_connection()
            time.sleep(_POLL)
        raise RuntimeError(f"the machine does not boot:\n{self.console.read_text(errors='replace')[-2000:]}")

    def _sshd_answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.ports[22]), timeout=3) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _forget_connection(self) -> None:
        self._forwarded.clear()
        subprocess.run([*self._ssh(), "-O", "exit", "root@127.0.0.1"], capture_output=True, check=False)


_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [made.getsockname()[1] for made in sockets]
